"""Shared by all tests: one torch thread a process (small networks; see CONTRIBUTING)."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# CI runs the same examples every time; at a desk each run tries new ones
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


@pytest.fixture(autouse=True, scope="session")
def _one_torch_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def reference_data() -> Path:
    """The folder of published reference data, or a skip that says where it was looked for."""
    folder = Path(os.environ.get("BITFRONT_REFERENCE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"reference data not found in {folder}; set BITFRONT_REFERENCE_DATA")
    return folder
