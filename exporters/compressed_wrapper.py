"""What a searched model does around its transformers model, as a Python file that runs without it."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from torch import fx, nn

from ..errors import UnsupportedModel
from .compressed_model import Hub

_HEAD = '''"""What the searched model computes around its transformers model."""

import torch
from torch import device, inf, nan
from torch.fx import _pytree as fx_pytree
from torch.utils import _pytree as pytree
{imports}
NoneType = type(None)


class Wrapper(torch.nn.Module):
'''
_KNOWN = {"torch", "device", "inf", "nan", "fx_pytree", "pytree", "NoneType"}
_ALLOWED = {"torch", "math", "operator", "builtins", "_operator"}


class _Around(fx.Tracer):
    """Traces a model and leaves one module of it whole."""

    def __init__(self, whole: nn.Module) -> None:
        super().__init__()
        self._whole = whole

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return m is self._whole


def write_wrapper(model: nn.Module, hub: Hub, folder: Path) -> Path:
    """Write ``wrapper.py`` with a class ``Wrapper``, whose transformers model is to be attached at its path.

    Args:
        model: the searched model.
        hub: the transformers model in it.
        folder: where.

    Raises:
        UnsupportedModel: what it does depends on values, or uses more than torch.
    """
    try:
        graph = _Around(hub.model).trace(model)
    except Exception as cause:  # tracing raises anything
        raise UnsupportedModel(
            f"what {type(model).__name__} does around its transformers model cannot be traced "
            f"({str(cause).splitlines()[0]}); search {type(hub.model).__name__} itself"
        ) from cause
    for node in graph.nodes:
        node.type = None  # annotations are not needed, and would have to be imported
    code = graph.python_code("self")
    imports = _imports(model, code.globals)
    path = folder / "wrapper.py"
    path.write_text(_HEAD.format(imports=imports) + textwrap.indent(code.src.strip(), "    ") + "\n", encoding="utf-8")
    return path


def _imports(model: nn.Module, names: dict[str, Any]) -> str:
    """Imports of what the code names besides ``_KNOWN``.

    Raises:
        UnsupportedModel: it needs another package.
    """
    lines = []
    for name, value in sorted(names.items()):
        module, attribute = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
        if name in _KNOWN:
            continue
        if not module or "." in attribute or module.partition(".")[0] not in _ALLOWED:
            raise UnsupportedModel(f"what {type(model).__name__} does around its transformers model uses {name}")
        lines.append(f"from {module} import {attribute} as {name}\n")
    return "".join(lines)
