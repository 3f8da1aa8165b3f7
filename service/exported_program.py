"""What the graph of an exported program may say: names, operators, sizes, structures.

torch looks operators up by any name, evaluates sizes as Python and writes names into generated code, so each of these
must have the form that torch itself writes.
"""

from __future__ import annotations

import json
import re
from typing import Any

from ..errors import InvalidInput

_MOST_DEPTH = 60
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_STACK = re.compile(r"[A-Za-z0-9_.,;@<>]*")
_SIZES = ("sym_float", "sym_int", "sym_max", "sym_min", "sym_not", "sym_sum")
_NUMBERS = (
    "add", "and_", "eq", "floordiv", "ge", "getitem", "gt", "le", "lt", "mod", "mul", "ne", "neg", "or_", "pos", "pow",
    "sub", "truediv",
)  # fmt: skip
#: Functions of numbers and sizes, of ``operator`` and torch.
ARITHMETIC = frozenset(_SIZES + _NUMBERS)
_OPERATOR = re.compile(
    r"torch\.ops\.aten\.((?!__)[a-z_0-9]+|__(and|or|xor|lshift|rshift)__)\.(?!__)[A-Za-z_0-9]+|"
    rf"torch\.({'|'.join(_SIZES)})|_operator\.({'|'.join(_NUMBERS)})"
)
_TEXT = re.compile(r"[A-Za-z0-9_ .,>-]{0,200}")  # an argument, such as the equation of einsum
_SIZE = re.compile(r"[A-Za-z0-9_ (),='*+-]{1,400}")
_SIZE_WORD = re.compile(
    r"[su]\d+|Symbol|Integer|Add|Mul|Pow|Max|Min|FloorDiv|CleanDiv|CeilDiv|Mod|PythonMod|IntTrueDiv|Eq|Ne|Ge|Gt|Le|Lt|"
    r"positive|integer|nonnegative|True|False"
)
_POWER = re.compile(r", Integer\([1-4]\)\)")
_CONTAINERS = {"builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"}
_INPUTS = {"user_input", "parameter", "buffer", "tensor_constant"}
_OUTPUTS = {"user_output"}
_NESTED = ("as_graph", "as_operator", "as_custom_obj")
_PATH = re.compile(r"[A-Za-z0-9_.]*")


def checked_program(program: dict[str, Any], what: str) -> dict[str, Any]:
    """A program without what loading does not need.

    Args:
        program: ``model.json`` of an archive.
        what: names it in errors.

    Raises:
        InvalidInput: a name, an operator, a size or a structure is not allowed.
    """
    module = program["graph_module"]
    if module.get("treespec_namedtuple_fields"):
        raise InvalidInput(
            f"{what}: inputs or outputs are named tuples; export a model that takes and gives plain ones"
        )
    for node in module["graph"]["nodes"]:
        if not _OPERATOR.fullmatch(node["target"]):
            raise InvalidInput(f"{what}: the operator {node['target'][:80]!r} is not allowed; only ATen's are")
        stack = (node.get("metadata") or {}).get("nn_module_stack")
        node["metadata"] = {} if stack is None else {"nn_module_stack": _stack(stack, what)}
    for kinds, allowed in (("input_specs", _INPUTS), ("output_specs", _OUTPUTS)):
        for spec in module["signature"][kinds]:
            if not set(spec) <= allowed:
                raise InvalidInput(
                    f"{what}: {kinds} of kind {', '.join(spec)[:80]} are not allowed; export it in eval mode"
                )
    for call in module["module_call_graph"]:
        if call.get("signature") is not None:
            for key in ("in_spec", "out_spec"):
                call["signature"][key] = _structure(call["signature"][key], what)
    module["metadata"] = {}
    _check_strings(module, "graph_module", what)
    return {
        "graph_module": module,
        "opset_version": {key: int(value) for key, value in program["opset_version"].items() if _NAME.fullmatch(key)},
        "range_constraints": {
            key: {end: None if value[end] is None else int(value[end]) for end in ("min_val", "max_val")}
            for key, value in program["range_constraints"].items()
            if re.fullmatch(r"[su]\d+", key)
        },
        "schema_version": {key: int(program["schema_version"][key]) for key in ("major", "minor")},
        "verifiers": ["TRAINING"],
        "torch_version": "",
        "guards_code": [],
    }


def _stack(given: str, what: str) -> str:
    if not _STACK.fullmatch(given):
        raise InvalidInput(f"{what}: a module path that is not allowed: {given[:80]!r}")
    return given


def _structure(text: str, what: str) -> str:
    """A structure of inputs or outputs, made of plain containers."""
    version, tree = json.loads(text)
    waiting = [tree]
    while waiting:
        each = waiting.pop()
        kind, context = each["type"], each["context"]
        keys = json.loads(context) if context is not None else None
        plain = keys is None or (
            isinstance(keys, list) and all(isinstance(key, str) and _NAME.fullmatch(key) for key in keys)
        )
        if (kind is not None and kind not in _CONTAINERS) or not plain:
            raise InvalidInput(
                f"{what}: inputs or outputs of type {str(kind)[:80]}; export a model that takes and gives tensors, "
                "tuples or dicts of tensors"
            )
        waiting += each["children_spec"]
    return json.dumps([int(version), tree])


def _check_strings(value: Any, key: str, what: str, depth: int = 0) -> None:
    """Every text below a value is a name, a path, an operator, a size, or an argument."""
    if depth > _MOST_DEPTH:
        raise InvalidInput(f"{what}: nested deeper than {_MOST_DEPTH}")
    if isinstance(value, dict):
        for name, inner in value.items():
            if not _PATH.fullmatch(name) or (name in _NESTED and inner is not None):
                raise InvalidInput(f"{what}: {name[:80]!r} is not allowed in a graph")
            _check_strings(inner, name, what, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _check_strings(inner, key, what, depth + 1)
    elif isinstance(value, str) and key not in ("in_spec", "out_spec", "nn_module_stack"):
        if key == "expr_str":
            _check_size(value, what)
        elif not _ALLOWED.get(key, _PATH).fullmatch(value):
            raise InvalidInput(f"{what}: {key} {value[:80]!r} is no name")


_ALLOWED = {"name": re.compile(rf"({_NAME.pattern})?"), "as_string": _TEXT}


def _check_size(text: str, what: str) -> None:
    words = re.findall(r"[A-Za-z_]\w*", text)
    plain = _SIZE.fullmatch(text) and all(_SIZE_WORD.fullmatch(word) for word in words)
    if not plain or "**" in text or text.count("Pow(") > len(_POWER.findall(text)):
        raise InvalidInput(f"{what}: the size {text[:80]!r} is no arithmetic of sizes")
