"""The certificate of an artifact: what it was made from, what its files are, what the check back found."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..errors import ExportMismatch, InvalidInput
from .placement import CERTIFICATE
from .protocol import ExportRequest, Target
from .report import ExportReport

if TYPE_CHECKING:
    from ..task import Batch

SCHEMA = 2
_PIECE = 1 << 24


def certificate(
    target: Target, request: ExportRequest, report: ExportReport, folder: Path, files: Iterable[str], data: list[Batch]
) -> dict[str, Any]:
    """The certificate as plain JSON.

    Args:
        target: that wrote the artifact.
        request: what was asked for.
        report: what came of it.
        folder: where the files lie.
        files: names of the artifact's files.
        data: batches that the artifact was checked on, the example first.

    Returns:
        ``configuration``, digests of the configuration, the calibration, the model and the data, the files with size
        and sha256, versions, machine, time, and the report.
    """
    packages = sorted({"bitfront", "torch", "numpy", *target.packages})
    return {
        "schema_version": SCHEMA,
        "bitfront": _version("bitfront"),
        "configuration": request.configuration.to_dict(),
        "configuration_digest": request.configuration.digest,
        "calibration": request.quantized.calibration.digest,
        "inputs": {"model": model_digest(request.model), "data": data_digest(data), "samples": sum(map(len, data))},
        "files": {
            name: {"bytes": (folder / name).stat().st_size, "sha256": file_digest(folder / name)} for name in files
        },
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in packages}},
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "cpus": os.cpu_count(),
        },
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "report": report.to_dict(),
    }


def write_certificate(content: dict[str, Any], path: Path) -> None:
    """Write a certificate."""
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def check_files(path: str | Path) -> dict[str, Any]:
    """Read a certificate and compare the files beside it with what it says.

    Args:
        path: the certificate.

    Returns:
        Its content.

    Raises:
        InvalidInput: there is none, or it is not one.
        ExportMismatch: a file is missing or was changed.
    """
    path = Path(path)
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        files = content["files"]
    except FileNotFoundError:
        raise InvalidInput(
            f"no certificate {path}; it is called NAME.{CERTIFICATE}, or {CERTIFICATE} in a folder"
        ) from None
    except (ValueError, KeyError, TypeError) as cause:
        raise InvalidInput(f"{path} is not a certificate of an export: {cause!r}") from None
    for name, wanted in files.items():
        file = path.parent / name
        if not file.is_file():
            raise ExportMismatch(f"{file} is missing, which the certificate {path} names; export again")
        if file.stat().st_size != wanted["bytes"] or file_digest(file) != wanted["sha256"]:
            raise ExportMismatch(f"{file} is not the file that was checked (its sha256 differs); export again")
    return content


def file_digest(path: Path) -> str:
    """sha256 of a file, read in pieces."""
    content = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE):
            content.update(piece)
    return content.hexdigest()


def model_digest(model: torch.nn.Module) -> str:
    """Content hash of the parameters and buffers of a model (16 hex digits)."""
    content = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if isinstance(tensor, torch.Tensor):
            _add(content, name, tensor)
    return content.hexdigest()[:16]


def data_digest(batches: Iterable[Batch]) -> str:
    """Content hash of the inputs and targets of batches (16 hex digits)."""
    content = hashlib.sha256()
    for position, batch in enumerate(batches):
        for name, tensor in batch.tensors.items():
            _add(content, f"{position}/{name}", tensor)
        if batch.targets is not None:
            _add(content, f"{position}/targets", batch.targets)
    return content.hexdigest()[:16]


def _add(content: Any, name: str, tensor: torch.Tensor) -> None:
    content.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}".encode())
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    content.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")


def _processor() -> str:
    """What the machine calls its processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
