"""Tables of a user's own measurements: CSV or parquet in, the schema out.

Three spellings are understood without being told: the schema's own columns (``KernelRow``), those of
``aiconfigurator-core`` (framework, version, device, gemm_dtype, m, n, k, latency), and short ones (device, format, m,
n, k and a time). Anything else is mapped by ``columns={"m": "rows", "median_ms": "t_us"}``.

Times are milliseconds unless the name of the file's column ends in ``_us``, ``_ns`` or ``_s``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import InvalidInput
from ..devices import device as known_device
from ..devices import device_named
from .aiconfigurator import FORMATS, formats_of, quantizing
from .kernel_formats import PAIRS, kernel_named
from .schema import COLUMNS, IDENTITY, QUANTIZES
from .table import LatencyTable, read_parquet

if TYPE_CHECKING:
    import pandas as pd

    Column = pd.Series[Any]

#: Our column -> other names under which it is found.
NAMES: Mapping[str, tuple[str, ...]] = {
    "format": ("gemm_dtype", "kernel", "dtype"),
    "device": ("gpu", "hardware"),
    "runtime": ("framework",),
    "runtime_version": ("version",),
    "executed": ("kernel_source",),
    "op": ("op_name",),
}
_TIMES = [name for name in COLUMNS if name.endswith("_ms")]
_MILLISECONDS = {"_ms": 1.0, "_us": 1e-3, "_ns": 1e-6, "_s": 1e3, "": 1.0}
_OPERATORS = {"gemm": "Gemm", "matmul": "MatMul", "linear": "Gemm", "conv": "Conv", "conv2d": "Conv"}


def read_table(
    path: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    device: str | None = None,
    runtime: str | None = None,
    runtime_version: str | None = None,
    source: str | None = None,
    licence: str | None = None,
    date: str | None = None,
) -> LatencyTable:
    """A table of measurements from a file.

    Args:
        path: ``.csv``, ``.csv.gz`` or ``.parquet``.
        columns: our column -> column of the file, for those that are not found by name. Ours are those of ``KernelRow``
            and ``format`` (a kernel of ``gemm.GEMM_FORMATS``, a word of aiconfigurator, or a format of the grammar).
        device: of all rows, where the file does not say: a name from ``devices()``.
        runtime: likewise.
        runtime_version: likewise.
        source: who measured; the name of the file by default.
        licence: of the rows.
        date: of the measurement (ISO 8601).

    Raises:
        InvalidInput: the file cannot be read, lacks a column, or holds an unknown format or device, a time that is not
            positive, or a kernel twice. The message names the row, counted from 1 after the header.
    """
    where = Path(path).name
    raw = _raw(Path(path))
    packaged = "gemm_dtype" in raw
    frame = _renamed(raw, columns or {}, where)
    given = {
        "device": device,
        "runtime": runtime,
        "runtime_version": runtime_version,
        "source": source,
        "licence": licence,
        "date": date,
    }
    frame = frame.assign(**{name: value for name, value in given.items() if value is not None})
    if "source" not in frame:
        frame = frame.assign(source=where)
    if "runtime_version" not in frame:
        frame = frame.assign(runtime_version="")
    if len(frame) == 0:
        raise InvalidInput(f"{where} has no rows")
    if "runtime" in frame:
        frame = frame.assign(runtime=frame["runtime"].astype(str).str.lower())
    frame = _operators(_formats(_devices(frame, where), where, packaged))
    table = LatencyTable.from_frame(frame, where)
    _refuse_duplicates(table.frame, where)
    return table


def _raw(path: Path) -> pd.DataFrame:
    import pandas as pd

    if path.suffix == ".parquet":
        return read_parquet(path)
    if not path.name.endswith((".csv", ".csv.gz")):
        raise InvalidInput(f"{path} is neither .csv, .csv.gz nor .parquet; write the measurements as one of these")
    try:
        return pd.read_csv(path, keep_default_na=False, na_values=[""])
    except FileNotFoundError:
        raise InvalidInput(f"no table of measurements at {path}") from None
    except (ValueError, OSError, EOFError) as cause:  # pandas' parser errors are ValueErrors
        raise InvalidInput(f"{path} is not a CSV file of measurements: {cause}") from None


def _renamed(frame: pd.DataFrame, columns: Mapping[str, str], where: str) -> pd.DataFrame:
    """The columns under our names, times in milliseconds."""
    known = [*COLUMNS, "format"]
    for ours, theirs in columns.items():
        if ours not in known:
            raise InvalidInput(f"columns={{{ours!r}: …}}: the schema has no such column; it has {', '.join(known)}")
        if theirs not in frame:
            raise InvalidInput(f"{where} has no column {theirs!r}; it has {', '.join(map(str, frame.columns))}")
    chosen = dict(columns)
    taken = set(columns.values())
    for ours in known:
        names = (ours, *NAMES.get(ours, ())) if ours not in _TIMES else _time_names(ours)
        found = [name for name in names if name in frame and name not in taken]
        if ours not in chosen and found:
            chosen[ours] = found[0]
            taken.add(found[0])
    made = {ours: frame[theirs] for ours, theirs in chosen.items()}
    for ours in set(_TIMES) & set(chosen):
        made[ours] = _milliseconds(made[ours], where)
    return frame.iloc[:, :0].assign(**made)


def _time_names(ours: str) -> list[str]:
    """Names under which a time is looked for: ``median_ms``, ``median_us``, …, and for the mean also ``latency``."""
    stems = [ours.removesuffix("_ms"), *(("latency", "time") if ours == "mean_ms" else ())]
    return [ours, *(stem + unit for stem in stems for unit in _MILLISECONDS if stem + unit != ours)]


def _milliseconds(column: Column, where: str) -> Column:
    import pandas as pd

    found = re.search(r"_(ms|us|ns|s)$", str(column.name))
    numbers = pd.to_numeric(column, errors="coerce")
    bad = (numbers.isna() & column.notna()).to_numpy()
    if bad.any():
        row = int(bad.argmax())
        raise InvalidInput(f"{where}, row {row + 1}, column {column.name}: {column.iloc[row]!r} is not a number")
    return numbers * _MILLISECONDS[found[0] if found else ""]


def _devices(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """Names of hardware replaced by names of ``devices()``."""
    if "device" not in frame:
        raise InvalidInput(f"{where} does not say on which device it was measured; give device=...")
    names = _translated(frame["device"], _device, where)
    hardware = frame["device"].where(frame["device"] != names, "") if "hardware" not in frame else frame["hardware"]
    return frame.assign(device=names, hardware=hardware)


def _device(name: str) -> str:
    if name == "cpu":
        return name
    try:
        return known_device(name).name
    except InvalidInput:
        return device_named(name)


def _formats(frame: pd.DataFrame, where: str, packaged: bool) -> pd.DataFrame:
    """The two formats of the schema from the one word of a kernel.

    Args:
        frame: with the column ``format``, unless it has both formats.
        where: what to call it in a message.
        packaged: the words are those of aiconfigurator, whose meaning depends on the runtime.
    """
    if "weight_format" in frame and "activation_format" in frame:
        return frame
    if "format" not in frame:
        raise InvalidInput(
            f"{where} has no column for the format of the kernels; name it format, or map it: columns={{'format': …}}"
        )
    kernels = _translated(frame["format"], lambda name: kernel_named(name, FORMATS), where)
    if packaged and "runtime" in frame:
        inside = kernels.isin([])
        for runtime in frame["runtime"].unique():
            mine, words = frame["runtime"] == runtime, formats_of(runtime)
            kernels = kernels.where(~(mine & frame["format"].isin(words)), frame["format"].map(words))
            inside |= mine & kernels.isin(quantizing(runtime))
        if "attributes" not in frame:
            frame = frame.assign(attributes=inside.map({True: f"{{{QUANTIZES}}}", False: "{}"}))
    return frame.assign(
        weight_format=kernels.map({kernel: pair[0] for kernel, pair in PAIRS.items()}),
        activation_format=kernels.map({kernel: pair[1] for kernel, pair in PAIRS.items()}),
    )


def _operators(frame: pd.DataFrame) -> pd.DataFrame:
    if "op" not in frame:
        return frame.assign(op="Gemm") if {"m", "n", "k"} <= set(frame) else frame
    return frame.assign(op=frame["op"].map(lambda name: _OPERATORS.get(str(name).lower(), name)))


def _translated(column: Column, translate: Callable[[str], str], where: str) -> Column:
    """Each distinct value translated once; a refusal names the first row that has it."""
    words: dict[Any, str] = {}
    for value in column.unique():
        try:
            words[value] = translate(str(value))
        except InvalidInput as cause:
            row = int((column.isna() if value != value else column == value).to_numpy().argmax())
            raise InvalidInput(f"{where}, row {row + 1}: {cause}") from None
    return column.map(words)


def _refuse_duplicates(frame: pd.DataFrame, where: str) -> None:
    keys = [name for name in IDENTITY if name != "source"]
    again = frame.duplicated(keys).to_numpy()
    if again.any():
        row, count = int(again.argmax()), int(again.sum())
        same = (frame[keys].iloc[: row + 1] == frame[keys].iloc[row]).all(axis=1).to_numpy()
        raise InvalidInput(
            f"{where}, row {row + 1}: the same kernel as row {int(same.argmax()) + 1} "
            f"({count} such row{'s' if count > 1 else ''}); "
            "keep one, or say what sets them apart in the column attributes"
        )
