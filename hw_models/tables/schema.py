"""The schema of latency tables as columns: what ``KernelRow`` says of one kernel, for tables of 100,000.

A frame conforms when it has every column of ``KernelRow`` in that order, each in its type. Times are milliseconds; a
statistic that the source did not record is NaN, but the price (``median_ms``, else ``mean_ms``) must be there.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidInput
from ..rows import SCHEMA_VERSION, KernelRow

if TYPE_CHECKING:
    import pandas as pd

    Column = pd.Series[Any]

_TYPES = {"str": "object", "int": "int64", "float": "float64", "bool": "bool"}
#: Column -> numpy type, in order.
COLUMNS: Mapping[str, str] = {item.name: _TYPES[str(item.type)] for item in fields(KernelRow)}
#: Columns that a table may leave out, with what is taken instead.
DEFAULTS: Mapping[str, object] = {
    item.name: item.default for item in fields(KernelRow) if item.default is not MISSING
} | {
    "attributes": "{}",
    "executed": "",
    "conversion_ms": 0.0,
    "min_ms": np.nan,
    "p90_ms": np.nan,
    "p99_ms": np.nan,
    "std_ms": np.nan,
    "sigma_ms": np.nan,
    "samples": 1,
    "repeats": 0,
    "overhead_ms": 0.0,
    "stable": True,
    "date": "",
    "threads": 1,
    "hardware": "",
    "mode": "",
}
#: What tells one kernel from another; ``digest`` hashes them.
IDENTITY = (
    "device",
    "hardware",
    "runtime",
    "runtime_version",
    "driver",
    "threads",
    "op",
    "weight_format",
    "activation_format",
    "shape",
    "attributes",
    "mode",
    "cache",
    "source",
)
#: In ``attributes`` of rows whose time includes quantizing the input.
QUANTIZES = '"quantizes": true'
PRODUCTS = ("Gemm", "MatMul", "MatMulNBits")
_PRODUCT = re.compile(r"(?P<input>\d+(?:x\d+)*);(?P<weight>\d+x\d+)")


def conform(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """The frame in the schema: defaults filled in, columns in order and in their types, others left out.

    Args:
        frame: at least device, runtime, runtime_version, op, weight_format, activation_format, a time (``median_ms`` or
            ``mean_ms``), and ``shape`` or m, n and k.
        where: what to call the table in a message.

    Returns:
        A new frame; digests are made where there are none.

    Raises:
        InvalidInput: a column is missing, a value is not of its type, or a time is not positive. The message names the
            first bad row, counted from 1.
    """
    import pandas as pd

    filled = frame.reset_index(drop=True)
    filled = filled.assign(**_completed(filled))
    missing = [name for name in COLUMNS if name not in filled and name not in DEFAULTS and name != "digest"]
    if missing:
        either = {"shape": "shape (or m, n and k)", "median_ms": "median_ms (or mean_ms)", "mean_ms": ""}
        names = ", ".join(filter(None, (either.get(name, name) for name in missing)))
        has = ", ".join(map(str, frame.columns))
        raise InvalidInput(
            f"{where} lacks the columns {names}; it has {has}: rename them, or map them with columns={{…}}"
        )
    values = {name: _column(filled, name, where) for name in COLUMNS if name != "digest"}
    values["schema_version"] = pd.Series(SCHEMA_VERSION, index=range(len(filled)), dtype="int64")
    made = pd.DataFrame(values)
    check_times(made, where)
    _check_products(made, where)
    given = filled["digest"].astype(object) if "digest" in filled else row_digests(made)
    return made.assign(digest=given)[list(COLUMNS)]


def check_times(frame: pd.DataFrame, where: str) -> None:
    """Refuse prices that are missing, zero, negative or infinite.

    Raises:
        InvalidInput: names the first such row, counted from 1.
    """
    times = price_ms(frame)
    bad = np.flatnonzero(~(np.isfinite(times) & (times > 0)))
    if len(bad):
        raise InvalidInput(
            f"{where}, row {bad[0] + 1}: the time is {times[bad[0]]} ms, expected a positive number "
            f"({len(bad)} such row{'s' if len(bad) > 1 else ''}; a kernel that was not measured must be left out)"
        )


def _check_products(frame: pd.DataFrame, where: str) -> None:
    sizes = frame[["m", "n", "k"]].to_numpy()
    bad = np.flatnonzero(frame["op"].isin(PRODUCTS).to_numpy() & (sizes <= 0).any(axis=1))
    if len(bad):
        m, n, k = sizes[bad[0]]
        raise InvalidInput(
            f"{where}, row {bad[0] + 1}: a product with m={m}, n={n}, k={k}; all three must be at least 1"
        )


def price_ms(frame: pd.DataFrame) -> NDArray[np.float64]:
    """The time that counts for each row: the median, else the mean."""
    median = frame["median_ms"].to_numpy(dtype=np.float64)
    return np.where(np.isnan(median), frame["mean_ms"].to_numpy(dtype=np.float64), median)


def row_digests(frame: pd.DataFrame) -> Column:
    """The key of each row: sha256 over ``IDENTITY``, 16 hex digits."""
    import pandas as pd

    columns = [frame[name].astype(str).tolist() for name in IDENTITY]
    digests = [hashlib.sha256("\0".join(values).encode()).hexdigest()[:16] for values in zip(*columns, strict=True)]
    return pd.Series(digests, index=frame.index, dtype=object)


def _completed(frame: pd.DataFrame) -> dict[str, Column]:
    """Columns that follow from others: shape from m, n, k and these from the shape of a product; the other time."""
    import pandas as pd

    made: dict[str, Column] = {}
    if "shape" not in frame and {"m", "n", "k"} <= set(frame):
        m, n, k = (frame[name].astype(str) for name in ("m", "n", "k"))
        made["shape"] = m + "x" + k + ";" + n + "x" + k
    elif {"shape", "op"} <= set(frame):
        sizes = frame.reindex(columns=["m", "n", "k"], fill_value=0)
        bare = frame["op"].isin(PRODUCTS).to_numpy() & (sizes == 0).all(axis=1).to_numpy()
        if bare.any():
            shapes = frame["shape"].astype(str).to_numpy()[bare]
            sizes.loc[bare, ["m", "n", "k"]] = [_product(shape) for shape in shapes]
            made |= {name: sizes[name] for name in ("m", "n", "k")}
    for name in ("median_ms", "mean_ms"):
        if name not in frame and ("mean_ms" in frame or "median_ms" in frame):
            made[name] = pd.Series(np.nan, index=frame.index)
    return made


def _product(shape: str) -> tuple[int, int, int]:
    """m, n, k of ``input;weight``; the weight is ``[n, k]`` or ``[k, n]``. Zeros where it is neither."""
    found = _PRODUCT.fullmatch(shape)
    if found is None:
        return 0, 0, 0
    entering = [int(size) for size in found["input"].split("x")]
    first, second = (int(size) for size in found["weight"].split("x"))
    k = entering[-1]
    n = first if second == k else second if first == k else 0
    return math.prod(entering[:-1]), n, k


def _column(frame: pd.DataFrame, name: str, where: str) -> Column:
    """A column in its type; where it or a value is missing, the default."""
    import pandas as pd

    if name not in frame:
        return pd.Series([DEFAULTS[name]] * len(frame), dtype=COLUMNS[name])
    column = frame[name]
    if name in DEFAULTS and column.hasnans:
        column = column.astype(object).where(column.notna(), DEFAULTS[name]).rename(name)
    return _typed(column, COLUMNS[name], where)


def _typed(column: Column, kind: str, where: str) -> Column:
    import pandas as pd

    if kind == "object":
        return column.astype(object).where(column.notna(), "").map(str).astype(object)
    if kind == "bool":
        known = column.map({True: True, False: False, "true": True, "false": False, "True": True, "False": False})
        _refuse(known.isna(), column, "true or false", where)
        return known.astype(bool)
    numbers = pd.to_numeric(column, errors="coerce")
    if kind == "float64":
        _refuse(numbers.isna() & column.notna(), column, "a number", where)
        return numbers.astype("float64")
    _refuse(numbers.isna() | (numbers % 1 != 0) | (numbers < 0), column, "a whole number, 0 or more", where)
    return numbers.astype("int64")


def _refuse(bad: Column, column: Column, expected: str, where: str) -> None:
    rows = np.flatnonzero(bad.to_numpy())
    if len(rows):
        value = column.tolist()[rows[0]]
        raise InvalidInput(f"{where}, row {rows[0] + 1}, column {column.name}: {value!r} is not {expected}")
