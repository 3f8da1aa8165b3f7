"""What it takes to run a job again: seed, versions, commit, hardware, threads, and digests of all that it reads.

The search adds what it measured on (``search/run_record.py``): contexts, prices, space, recipe. All of it lies with the
job in the store and in ``front.json``. Of the environment only variables of a fixed list are recorded, which hold no
secrets.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from ..store import Store
from ..version import __version__
from .job import Job
from .job_key import source_digest
from .locations import digest, inside

SCHEMA_VERSION = 1
#: on which numbers depend, by the name of the distribution
PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "pandas",
    "optuna",
    "ray",
    "highspy",
    "moocore",
    "scikit-learn",
    "safetensors",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "torchao",
    "transformers",
    "aiconfigurator-core",
)
#: that change numbers, threads or devices; none of them holds a secret
VARIABLES = (
    "ATEN_CPU_CAPABILITY",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_VISIBLE_DEVICES",
    "DNNL_MAX_CPU_ISA",
    "GOMP_CPU_AFFINITY",
    "KMP_AFFINITY",
    "MKL_CBWR",
    "MKL_NUM_THREADS",
    "NVIDIA_TF32_OVERRIDE",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "PYTHONHASHSEED",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)
_SPLITS = ("calibration", "validation", "holdout")
_ROOT = Path(__file__).resolve().parents[1]


def of(job: Job, folder: Path, store: Store | None = None) -> dict[str, Any]:
    """The record of a job, taken in the process that runs it, before it runs.

    Args:
        job: what is asked.
        folder: where its relative paths start.
        store: keeps the digests of large files.

    Returns:
        Plain data.

    Raises:
        InvalidInput: a file of the job is missing.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "specification": _digest_of(job.plain()),
        "seed": job.search.seed,
        "versions": versions(),
        "source": source(),
        "device": job.device.model_dump(mode="json"),
        "hardware": hardware(),
        "threads": threads(),
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "inputs": _inputs(job, folder, store),
    }


def versions() -> dict[str, str]:
    """Of bitfront, Python and the packages that numbers depend on, as far as they are installed."""
    found = {"bitfront": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # an extra that this installation lacks
    return found


@cache
def source() -> dict[str, Any]:
    """Which code runs: a hash of all modules of the package, and commit and cleanliness if it is a git checkout."""
    return {"digest": _source_digest(), **_checkout()}


def hardware() -> dict[str, Any]:
    """Processor, cores, memory, GPUs, operating system; no name of the machine."""
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "cpu": _processor(),
        "cores": psutil.cpu_count(logical=False),
        "logical_cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "gpus": gpus,
        "cuda": torch.version.cuda,
        "system": f"{platform.system()} {platform.machine()}",
    }


def threads() -> dict[str, int]:
    """Of torch in this process."""
    import torch

    return {"torch": torch.get_num_threads(), "torch_interop": torch.get_num_interop_threads()}


def _inputs(job: Job, folder: Path, store: Store | None) -> dict[str, Any]:
    """Names and content hashes of what the job reads."""
    told: dict[str, Any] = {}
    model = job.model.model_dump(mode="json", exclude_none=True)
    for name in ("zoo", "architecture", "factory"):
        if name in model:
            told[f"model.{name}"] = {"name": model[name]}
    if job.model.factory is not None:
        told["model.factory"]["digest"] = source_digest(job.model.factory.split(":")[0], folder, store)
    for name in ("weights", "exported"):
        if isinstance(location := model.get(name), str):
            told[f"model.{name}"] = {"digest": digest(inside(folder, location), f"model.{name}", store)}
    if job.data.zoo is not None:
        told["data.zoo"] = {"name": job.data.zoo}
    for split in _SPLITS:
        given = getattr(job.data, split)
        if isinstance(given, str):
            told[f"data.{split}"] = {"digest": digest(inside(folder, given), f"data.{split}", store)}
        elif given is not None:
            told[f"data.{split}"] = {"samples": given}
    return told


def _digest_of(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:32]


def _source_digest() -> str:
    """Over the modules of the package; tests, benchmarks and examples beside them do not count."""
    outside = {"tests", "benchmarks", "examples", "docs", "build", "out"}
    content = hashlib.sha256()
    for path in sorted(_ROOT.rglob("*.py")):
        parts = path.relative_to(_ROOT).parts
        if parts[0] not in outside and not any(part.startswith(".") for part in parts):
            content.update(f"{'/'.join(parts)}|".encode())
            content.update(path.read_bytes())
    return content.hexdigest()[:32]


def _checkout() -> dict[str, Any]:
    """Commit, and whether files that git knows differ from it; nothing if the package is no checkout."""
    if not (_ROOT / ".git").exists():
        return {}
    try:
        return {"commit": _git("rev-parse", "HEAD"), "dirty": bool(_git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError) as cause:  # no git here, or not our repository
        return {"commit": None, "unknown": " ".join(str(cause).split())}


def _git(*arguments: str) -> str:
    command = ["git", "--no-optional-locks", "-C", str(_ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()


def _processor() -> str:
    """The processor's name; the platform module knows only its family on Linux."""
    about = Path("/proc/cpuinfo")
    if about.is_file():
        for line in about.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
