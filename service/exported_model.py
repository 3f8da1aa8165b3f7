"""A ``torch.export`` archive as an ordinary module: its layers are found, quantized and exported like any others.

The program is unflattened into the modules that it was exported from. Where the graph of one of them is nothing but
one ATen linear, convolution or embedding on its own parameters, the torch module takes its place, so that it is a site;
what comes out is compared with the program's own outputs before it is used.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch
from torch import nn
from torch.export import ExportedProgram

from ..errors import InvalidInput, UnsupportedModel
from .exported_archive import check_archive, rewrite
from .exported_graph import ExportedModel, plain
from .exported_program import ARITHMETIC

if TYPE_CHECKING:
    from ..task import Batch

_TOLERANCE = 1e-4  # relative to the largest output; the layers are the same kernels
#: Types of arguments that operators may take; one that takes a file name, a stream or a storage is refused.
_ARGUMENTS = (
    "Tensor", "number", "int", "float", "bool", "SymInt", "SymBool", "Device", "Layout", "MemoryFormat", "ScalarType",
    "Optional", "List", "NoneType", "Dimname", "Scalar",
)  # fmt: skip
#: Operators with a text as argument: a mode, or the equation of einsum.
_WITH_TEXT = (
    "aten::gelu", "aten::pad", "aten::div", "aten::einsum", "aten::scatter_reduce", "aten::conv1d", "aten::conv2d",
    "aten::conv3d", "aten::index_reduce", "aten::linalg_norm",
)  # fmt: skip


def load_exported(stream: IO[bytes], what: str, batches: Sequence[Batch]) -> ExportedModel:
    """A model from an archive of ``torch.export.save``; nothing in it is unpickled or run as code.

    Args:
        stream: the archive, seekable.
        what: names it in errors.
        batches: of inputs that the model will see: each is checked against the program's shapes, and on the first the
            model is compared with the program.

    Returns:
        A module in which linear, convolution and embedding layers are torch's own.

    Raises:
        InvalidInput: it is no such archive, holds what is not allowed, or is of another version of torch.
        UnsupportedModel: it cannot run on these inputs, or has been exported with a fixed batch.
    """
    program = _program(stream, what)
    names = _input_names(program, what)
    for batch in batches:
        _check_shapes(program, names, batch, what)
    model = plain(torch.export.unflatten(program), names, program.call_spec.out_spec).eval()
    _compare(model, program, batches[0], what)
    return model


def _program(stream: IO[bytes], what: str) -> ExportedProgram:
    checked = check_archive(stream, what)
    empty = io.BytesIO()
    torch.save(((), {}), empty)
    with tempfile.TemporaryDirectory(prefix="bitfront-exported-") as folder:
        path = Path(folder) / "model.pt2"
        stream.seek(0)
        rewrite(stream, checked, path, empty.getvalue())
        try:
            program = torch.export.load(path)
        except Exception as cause:
            told = " ".join(str(cause).split())[:200]
            raise InvalidInput(
                f"{what}: torch {torch.__version__} does not load it ({told}); export it with this version of torch"
            ) from cause
    for node in program.graph.nodes:
        if node.op == "call_function":
            check_operator(node.target, what)
    return program


def check_operator(operator: Any, what: str) -> None:
    """Refuse what is no operator of ATen on tensors and numbers.

    Args:
        operator: what a node of the graph calls.
        what: names the file in errors.

    Raises:
        InvalidInput: it is none, or takes the name of a file or anything else that reaches beyond tensors.
    """
    if not isinstance(operator, torch._ops.OpOverload):
        if getattr(operator, "__name__", "") not in ARITHMETIC:
            raise InvalidInput(f"{what}: {operator!r} is no operator")
        return
    name = operator._schema.name
    if not name.startswith("aten::"):
        raise InvalidInput(f"{what}: the operator {name} is not allowed; only ATen's are")
    for argument in operator._schema.arguments:
        words = str(argument.type).replace("[", " ").replace("]", " ").replace("?", " ").split()
        if any(word not in _ARGUMENTS and not (word == "str" and name in _WITH_TEXT) for word in words):
            raise InvalidInput(f"{what}: the operator {name} takes a {argument.type}, which is not allowed")


def _input_names(program: ExportedProgram, what: str) -> tuple[str, ...]:
    """Names of the inputs in order."""
    positional, named = program.call_spec.in_spec.children()
    trees = [*positional.children(), *named.children()]
    if any(not tree.is_leaf() for tree in trees):
        raise UnsupportedModel(f"{what}: an input is a tuple or dict; export a model whose inputs are tensors")
    users = program.graph_signature.user_inputs
    by_name = tuple(str(key) for key in named.context or ())
    first = tuple(str(name) for name in users[: len(positional.children())])
    return (*first, *by_name)


def _check_shapes(program: ExportedProgram, names: tuple[str, ...], batch: Batch, what: str) -> None:
    """Whether the program takes inputs of these shapes, and batches of any size."""
    shapes = _shapes(program)
    given = list(batch.tensors.values())
    if len(given) != len(names):
        raise UnsupportedModel(f"{what} takes {', '.join(names)}; the data has {len(given)} inputs")
    values = [batch.tensors[name] for name in names] if set(batch.tensors) == set(names) else given
    for name, expected, value in zip(names, shapes, values, strict=True):
        found = tuple(value.shape)
        told = "[" + ", ".join(str(size) if isinstance(size, int) else "any" for size in expected) + "]"
        if expected and isinstance(expected[0], int):
            raise UnsupportedModel(
                f"{what}: {name} has the fixed shape {told}; export it for batches of any size: "
                f"torch.export.export(model, (x,), dynamic_shapes=({{0: torch.export.Dim.DYNAMIC}},))"
            )
        fits = all(size == other for size, other in zip(expected, found, strict=False) if isinstance(size, int))
        if len(found) != len(expected) or not fits:
            raise UnsupportedModel(f"{what}: {name} has the shape {told}; the data gives {list(found)}")


def _shapes(program: ExportedProgram) -> list[tuple[Any, ...]]:
    values = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
    return [tuple(values[name].shape) for name in program.graph_signature.user_inputs]


@torch.no_grad()
def _compare(model: nn.Module, program: ExportedProgram, batch: Batch, what: str) -> None:
    """Refuse a model that does not compute what its program does."""
    piece = batch.piece(0, 2)
    try:
        expected = piece(program.module(check_guards=False))
        found = piece(model)
    except Exception as cause:
        told = " ".join(str(cause).split())[:200] or type(cause).__name__
        raise UnsupportedModel(f"{what} does not run on the data: {told}") from cause
    if not _tensors(found):
        raise UnsupportedModel(f"{what} gives no tensor")
    for left, right in zip(_tensors(found), _tensors(expected), strict=True):
        error = float((left.double() - right.double()).abs().max())
        if not error <= _TOLERANCE * max(1.0, float(right.double().abs().max())):
            raise UnsupportedModel(f"{what}: the modules made of it differ from the program by {error:.2g}; not used")


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    inner = list(value.values()) if isinstance(value, Mapping) else value if isinstance(value, tuple | list) else []
    return [tensor for each in inner for tensor in _tensors(each)]
