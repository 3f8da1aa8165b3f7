"""The HTTP API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .app import create_app
    from .identity import ensure_admin

__all__ = ["create_app", "ensure_admin"]

_LAZY = {"create_app": "app", "ensure_admin": "identity"}  # workers import export orders only, no web server


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_LAZY[name]}", __name__), name)
