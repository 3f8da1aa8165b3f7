"""Configurations into runtimes: one exporter per target, and every artifact checked back."""

from .api import STEPS, export
from .protocol import Capability, Exporter, ExportRequest
from .registry import get, names
from .report import Artifact, ExportReport, Verification

__all__ = [
    "STEPS",
    "Artifact",
    "Capability",
    "ExportReport",
    "ExportRequest",
    "Exporter",
    "Verification",
    "export",
    "get",
    "names",
]
