"""Where ``aiconfigurator-core`` keeps its tables.

``systems/data/<system>/<family>/<runtime>/<version>/<table>.parquet`` (0.12), one row a kernel, times in milliseconds.
Folders that hold only a ``reuse.yaml`` repeat another version's rows and are left out.
"""

from __future__ import annotations

from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import InvalidInput

if TYPE_CHECKING:
    import pyarrow as pa

#: Runtimes in the order in which they are asked when none is named.
RUNTIMES = ("trtllm", "sglang", "vllm")
LICENCE = "Apache-2.0"

#: Folder of the package -> name in ``devices()``.
SYSTEMS = {
    "a100_sxm": "nvidia-a100-sxm-80gb",
    "h100_sxm": "nvidia-h100-sxm",
    "h200_sxm": "nvidia-h200-sxm",
    "l40s": "nvidia-l40s",
    "b200_sxm": "nvidia-b200",
    "b300_sxm": "nvidia-b300",
    "gb200": "nvidia-gb200",
    "gb300": "nvidia-gb300",
    "rtx_pro_6000_server": "nvidia-rtx-pro-6000",
}


def installed_version() -> str | None:
    """The version of ``aiconfigurator-core``, or ``None`` where it is not installed."""
    try:
        return metadata.version("aiconfigurator-core")
    except metadata.PackageNotFoundError:
        return None


def systems_folder() -> Path:
    """Its folder of tables and data sheets (the package itself is not imported: that would load its estimators).

    Raises:
        InvalidInput: the package is not installed.
    """
    found = find_spec("aiconfigurator_core")
    if found is None or found.origin is None:
        raise InvalidInput(
            "measured tables of NVIDIA GPUs need the package aiconfigurator-core: pip install 'bitfront[nvidia]'"
        )
    return Path(found.origin).parent / "systems"


def versions(systems: Path, system: str, family: str, table: str) -> list[Path]:
    """The files of a table, newest version of the runtime first."""
    from packaging.version import Version

    found = (systems / "data" / system / family).glob(f"*/{table}")
    return sorted(found, key=lambda path: Version(path.parent.name), reverse=True)


def read(path: Path, columns: list[str] | None = None) -> pa.Table:
    """The columns of a parquet file, all by default."""
    import pyarrow.parquet as pq

    return pq.read_table(path, columns=columns, use_threads=False, memory_map=True)
