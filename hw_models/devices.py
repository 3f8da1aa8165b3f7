"""Named devices: what their data sheets promise."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import TYPE_CHECKING

from ..errors import InvalidInput
from .gemm import GEMM_FORMATS

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Device:
    """A device of the roofline.

    Attributes:
        name: such as ``"nvidia-h100-sxm"``.
        bandwidth_gb_s: peak memory bandwidth in 10^9 bytes per second.
        peak_tera: compute type (fp32, tf32, fp16, bf16, fp8, fp6, fp4, int8, int4) -> dense peak in 10^12 operations
            per second; a multiply-accumulate is two operations. A type that is missing has no kernel on the device.
        reference: the data sheet.
        power_w: limit of the board's power in watt.
        compute_capability: NVIDIA's, such as ``"9.0"``.
        hardware: names that the driver gives it, such as ``"NVIDIA H100 80GB HBM3"``.
    """

    name: str
    bandwidth_gb_s: float
    peak_tera: Mapping[str, float]
    reference: str
    power_w: float
    compute_capability: str
    hardware: tuple[str, ...]


@cache
def _known() -> Mapping[str, Device]:
    content = json.loads(files(__package__).joinpath("devices.json").read_text())
    return MappingProxyType(
        {
            name: Device(
                name,
                **{
                    **entry,
                    "peak_tera": MappingProxyType(entry["peak_tera"]),
                    "hardware": tuple(entry["hardware"]),
                },
            )
            for name, entry in content["devices"].items()
        }
    )


def device(name: str) -> Device:
    """The named device.

    Raises:
        InvalidInput: no such device; the message names the nearest.
    """
    known = _known()
    if name not in known:
        near = difflib.get_close_matches(name, ["cpu", *known], n=3, cutoff=0.3) or ["cpu", *known]
        raise InvalidInput(f"unknown device {name!r}; nearest: {', '.join(near)} (`bitfront devices` lists all)")
    return known[name]


def device_named(hardware: str) -> str:
    """The device that a name of the driver stands for, such as ``torch.cuda.get_device_name()`` gives.

    Raises:
        InvalidInput: no such device is known.
    """
    known = {name: entry.name for entry in _known().values() for name in (*entry.hardware, entry.name)}
    if hardware not in known:
        near = difflib.get_close_matches(hardware, known, n=2, cutoff=0.3)
        raise InvalidInput(
            f"no device is known for the hardware {hardware!r}"
            + (f"; nearest: {', '.join(near)}" if near else "")
            + "; say which it is with device=... (`bitfront devices` lists all)"
        )
    return known[hardware]


def devices() -> pd.DataFrame:
    """All devices that ``price`` knows: how their latency comes about, what was measured, and the data sheet.

    Columns: device; latency (``measured``: the runtime on this machine for the CPU, tables for others; ``roofline``:
    data sheet only); kernels (formats that tables measured, joined by a space); rows; runtimes; bandwidth_gb_s;
    power_w; compute_capability; one column per compute type (10^12 operations per second, NaN where there is no such
    kernel); reference. Several versions of a runtime count once in ``runtimes`` and with all their rows in ``rows``.

    Raises:
        InvalidInput: a file in the user's folder of tables is no latency table.
    """
    import pandas as pd

    from .tables import tables

    types = ["fp32", "tf32", "fp16", "bf16", "fp8", "fp6", "fp4", "int8", "int4"]
    records: list[dict[str, object]] = [
        {"device": "cpu", "latency": "measured", "reference": "this machine, timed with onnxruntime"}
    ]
    found = tables()
    for entry in _known().values():
        mine = [info for info in found if info.device == entry.name and info.rows]
        kernels = {kernel for info in mine for kernel, _ in info.formats}
        records.append(
            {
                "device": entry.name,
                "latency": "measured" if mine else "roofline",
                "kernels": " ".join(kernel for kernel in GEMM_FORMATS if kernel in kernels),
                "rows": sum(info.rows for info in mine),
                "runtimes": " ".join(dict.fromkeys(info.runtime for info in mine)),
                "bandwidth_gb_s": entry.bandwidth_gb_s,
                "power_w": entry.power_w,
                "compute_capability": entry.compute_capability,
                **{kind: entry.peak_tera.get(kind) for kind in types},
                "reference": entry.reference,
            }
        )
    texts = ["kernels", "runtimes", "compute_capability"]
    numbers = ["bandwidth_gb_s", "power_w", *types]
    columns = ["device", "latency", "kernels", "rows", "runtimes", *numbers[:2], "compute_capability", *types]
    frame = pd.DataFrame(records, columns=[*columns, "reference"]).fillna(dict.fromkeys(texts, "") | {"rows": 0})
    return frame.astype(dict.fromkeys(numbers, "float64") | {"rows": "int64"})
