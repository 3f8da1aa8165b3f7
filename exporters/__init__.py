"""Configurations into runtimes: one target each, and every artifact checked back in a process of its own."""

from .api import STEPS, export
from .certificate import check_files
from .placement import certificate_path
from .protocol import Capability, ExportRequest, Runtime, Target, Violation
from .registry import get, names
from .report import Artifact, ExportReport, QualityCheck, Timing, Verification
from .restriction import Capabilities, Restricted, capabilities, restricted
from .rules import check, check_packages, nearest, takes, violations
from .verify import Checks

__all__ = [
    "STEPS",
    "Artifact",
    "Capabilities",
    "Capability",
    "Checks",
    "ExportReport",
    "ExportRequest",
    "QualityCheck",
    "Restricted",
    "Runtime",
    "Target",
    "Timing",
    "Verification",
    "Violation",
    "capabilities",
    "certificate_path",
    "check",
    "check_files",
    "check_packages",
    "export",
    "get",
    "names",
    "nearest",
    "restricted",
    "takes",
    "violations",
]
