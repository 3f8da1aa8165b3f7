"""Content hash of a user's own callable, so that stored results of another one are not taken for its own."""

from __future__ import annotations

import functools
import hashlib
import re
from types import CodeType, FunctionType, MethodType
from typing import Any

_DEPTH = 4


def fingerprint(callable_: Any) -> str:
    """Hash of a function or callable object (16 hex digits), the same in every process of one Python version.

    It covers the name, the bytecode with its constants, defaults, and the values (numbers, texts, tensors, tuples
    and dicts of them) that closures and objects hold; not the functions that the code calls by their global name.
    """
    return hashlib.sha256(_describe(callable_, _DEPTH).encode()).hexdigest()[:16]


def without_addresses(text: str) -> str:
    """The text without memory addresses, which differ from process to process."""
    return re.sub(r"0x[0-9a-fA-F]+", "0x", text)


def _describe(value: Any, depth: int) -> str:
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)) or value is Ellipsis:
        return repr(value)
    if isinstance(value, CodeType):
        return f"{value.co_code.hex()}{_all(value.co_names)}{_all(value.co_consts, depth)}"
    name = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    if depth == 0:
        return name
    if isinstance(value, (tuple, list)):
        return f"({_all(value, depth)})"
    if isinstance(value, (set, frozenset)):
        return f"{{{','.join(sorted(_describe(item, depth - 1) for item in value))}}}"
    if isinstance(value, dict):
        return f"{{{','.join(sorted(f'{key!r}:{_describe(item, depth - 1)}' for key, item in value.items()))}}}"
    if isinstance(value, functools.partial):
        return f"partial{_describe((value.func, value.args, value.keywords), depth + 1)}"
    if hasattr(value, "detach") or hasattr(value, "tobytes"):  # a tensor or an array
        array = value.detach().cpu().numpy() if hasattr(value, "detach") else value
        return f"{array.dtype}{array.shape}{hashlib.sha256(array.tobytes()).hexdigest()}"
    if isinstance(value, MethodType):
        return f"{_describe(value.__func__, depth)} of {_describe(value.__self__, depth - 1)}"
    if isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if _filled(cell)]
        held = (value.__defaults__, value.__kwdefaults__, *cells)
        return f"{name} {_describe(value.__code__, depth)} {_all(held, depth)}"
    if isinstance(value, type) or not hasattr(value, "__dict__"):
        return name
    methods = (getattr(type(value), method, None) for method in ("__call__", "forward"))
    own = [method for method in methods if isinstance(method, FunctionType)]
    return f"{name} {_all(own, depth)} {_describe(vars(value), depth)}"


def _all(values: Any, depth: int = _DEPTH) -> str:
    return ",".join(_describe(value, depth - 1) for value in values)


def _filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False
