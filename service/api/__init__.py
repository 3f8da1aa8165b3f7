"""The HTTP API."""

from __future__ import annotations

from .app import create_app
from .identity import ensure_admin

__all__ = ["create_app", "ensure_admin"]
