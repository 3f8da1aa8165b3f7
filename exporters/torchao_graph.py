"""The float model as a Python file of torch operators, which the loader runs on torchao's weights without bitfront.

``torch.export`` gives the graph; it is written as source, with parameters and buffers under their own names. Linear
layers, convolutions and embeddings are calls of ``torch.nn.functional``, which torchao's tensors take over.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..errors import UnsupportedModel
from ..formats import Format
from ..task import Batch
from .comparison import doubled
from .protocol import ExportRequest
from .quiet_trace import traced_quietly

_HEAD = '''"""The float model as torch operators; parameters and buffers are attached by load.py."""

import torch
from torch import device, inf, nan
from torch.nn import functional

aten = torch.ops.aten
NoneType = type(None)


class Model(torch.nn.Module):
'''
_FUNCTIONS = {
    torch.ops.aten.linear.default: "linear",
    torch.ops.aten.conv2d.default: "conv2d",
    torch.ops.aten.conv2d.padding: "conv2d",
}
#: Names that fx always lists; the last two are not used by this kind of source.
_KNOWN = {"torch", "device", "inf", "nan", "NoneType", "fx_pytree", "pytree"}
_HALF = {8: torch.bfloat16, 5: torch.float16}


@dataclass(frozen=True)
class Graph:
    """A traced float model.

    Attributes:
        source: of ``model.py``.
        tensors: parameters and buffers that it reads and the model saves, by name, each once.
        aliases: other name -> name, of parameters that are shared.
        dynamic: whether the batch size is free.
    """

    source: str
    tensors: dict[str, Tensor]
    aliases: dict[str, str]
    dynamic: bool


def trace(request: ExportRequest) -> Graph:
    """Trace the float model.

    Sites in 16 bits have their inputs rounded in the graph, as the fake-quantized model does.

    Args:
        request: model, configuration and example.

    Raises:
        UnsupportedModel: ``torch.export`` cannot express the model.
    """
    with traced_quietly(request.model):
        example = doubled(request.example) if len(request.example) == 1 else request.example
        program = _export(request.model, example, dynamic=True)
        dynamic = not isinstance(program, Exception)
        if isinstance(program, Exception):
            program = _export(request.model, request.example, dynamic=False)
    if isinstance(program, Exception):
        lines = str(program).strip().splitlines() or [""]
        raise UnsupportedModel(
            f"torch.export cannot express {type(request.model).__name__}: {type(program).__name__}: {lines[0]}"
        ) from program
    module = program.module(check_guards=False)
    assert isinstance(module, fx.GraphModule)
    _round_half_inputs(module.graph, request)
    _name_functions(module.graph)
    return Graph(_source(module, request.model), *_tensors(module, request.model), dynamic)


def _export(model: nn.Module, example: Batch, dynamic: bool) -> torch.export.ExportedProgram | Exception:
    free = {name: _free(tensor, len(example)) for name, tensor in example.tensors.items()} if dynamic else None
    named = isinstance(example.inputs, dict)
    try:
        return torch.export.export(
            model,
            () if isinstance(example.inputs, dict) else example.inputs,
            example.inputs if isinstance(example.inputs, dict) else None,
            dynamic_shapes=free if free is None or named else tuple(free.values()),
        )
    except Exception as cause:  # noqa: BLE001  torch.export raises anything; the caller reports the first line
        return cause


def _free(tensor: Tensor, samples: int) -> dict[int, Any] | None:
    return {0: torch.export.Dim.AUTO} if tensor.ndim and tensor.shape[0] == samples else None


def _round_half_inputs(graph: fx.Graph, request: ExportRequest) -> None:
    """Round the inputs of sites in 16 bits.

    Raises:
        UnsupportedModel: the graph does not use the weight of such a site in a layer.
    """
    sites = {site.name: site for site in request.space.sites}
    wanted = {}
    for name in set(request.rounded_modules.values()):
        activation = Format.parse(request.configuration[name]).activation
        if activation is not None and activation.is_wide:
            weight = request.model.get_parameter(sites[name].parameter)
            wanted[id(weight)] = name, _HALF[activation.exponent_bits]
    done = set()
    for node in list(graph.nodes):
        found = wanted.get(id(_attribute(request.model, str(node.target)))) if node.op == "get_attr" else None
        for user in list(node.users) if found else ():
            if len(user.args) > 1 and user.args[1] is node and isinstance(user.args[0], fx.Node):
                assert found is not None
                with graph.inserting_before(user):
                    narrow = graph.call_method("to", (user.args[0], found[1]))
                    wide = graph.call_method("to", (narrow, torch.float32))
                user.update_arg(0, wide)
                done.add(found[0])
    missing = sorted({name for name, _ in wanted.values()} - done)
    if missing:
        raise UnsupportedModel(f"site {missing[0]}: the graph has no layer whose input could be rounded; use fp32")


def _name_functions(graph: fx.Graph) -> None:
    """Linear layers, convolutions and embeddings as calls of ``torch.nn.functional``."""
    for node in graph.nodes:
        if node.op == "call_function" and node.target in _FUNCTIONS:
            node.target = getattr(nn.functional, _FUNCTIONS[node.target])
        elif node.op == "call_function" and node.target is torch.ops.aten.embedding.default:
            node.target, node.args = nn.functional.embedding, (node.args[1], node.args[0])
            node.kwargs = {}


def _source(module: fx.GraphModule, model: nn.Module) -> str:
    graph = module.graph
    graph.set_codegen(fx.graph.CodeGen())
    for node in graph.nodes:
        node.type = None
    code = graph.python_code("self")
    other = sorted(name for name in set(code.globals) - _KNOWN if not name.startswith("torch"))
    if other:
        raise UnsupportedModel(f"the graph of {type(model).__name__} needs {other[0]}, which torch does not bring")
    text = code.src.strip().replace("torch.ops.aten.", "aten.").replace("torch.nn.functional.", "functional.")
    return _HEAD + textwrap.indent(text, "    ") + "\n"


def _tensors(module: fx.GraphModule, model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What the graph reads or the model saves, and second names of shared tensors."""
    read = [str(node.target) for node in module.graph.nodes if node.op == "get_attr"]
    names = dict.fromkeys([name for name, _ in model.named_parameters()])
    names |= dict.fromkeys([*model.state_dict(), *read])
    found: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    owners: dict[int, str] = {}
    for name in names:
        tensor = _attribute(model, name)
        if tensor is None:
            tensor = _attribute(module, name)
        if tensor is None:
            raise UnsupportedModel(f"the graph of {type(model).__name__} reads {name}, which is no tensor")
        if isinstance(tensor, nn.Parameter) and id(tensor) in owners:
            aliases[name] = owners[id(tensor)]
            continue
        owners[id(tensor)] = name
        found[name] = tensor.detach()
    return found, aliases


def _attribute(module: nn.Module, name: str) -> Tensor | None:
    value: Any = module
    for part in name.split("."):
        value = getattr(value, part, None)
    return value if isinstance(value, Tensor) else None
