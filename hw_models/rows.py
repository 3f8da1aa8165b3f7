"""KernelRow, MeasuredTable: measured latencies, one row per kernel, kept in parquet.

``KernelRow`` is the schema of every latency table; ``tables.schema`` has it as columns for tables of many rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import MISSING, asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInput
from ..files import replacing

if TYPE_CHECKING:
    import pandas as pd

#: 1: the columns up to ``date``; 2: those after it, all with a default, so that rows of version 1 still load.
SCHEMA_VERSION = 2


@dataclass(frozen=True, slots=True)
class KernelRow:
    """One kernel, timed.

    Attributes:
        digest: content hash of everything that identifies the kernel and where it ran: the key.
        device: ``"cpu"`` or the name of an accelerator (see ``devices()``).
        hardware: model name of the processor.
        runtime: such as ``"onnxruntime"``.
        runtime_version: its version.
        threads: intra-op threads; 1 on an accelerator.
        op: ONNX operator (Conv, ConvTranspose, Gemm, MatMul, Gather), or a conversion.
        weight_format: what the kernel reads, such as fp32 or int8 (see ``kernels``, ``tables.kernel_formats``).
        activation_format: what enters the kernel: fp32, bf16, uint8, int64 (indices).
        shape: ``input;weight`` such as ``1x32x112x112;16x32x1x1`` (the weight as torch lays it out); for products
            given by m, n and k alone ``MxK;NxK``.
        attributes: JSON object of strides, pads, dilations, group, bias.
        executed: operators in the order in which they were seen running, joined by ``+``.
        conversion_ms: time in conversions that neighbours in the same format make unnecessary: blocked layout, and
            float to int8 and back. Not part of the times below.
        min_ms: shortest time of one run, like all times below without the overhead of the call and conversions.
        median_ms: the price.
        p90_ms: 90th percentile.
        p99_ms: 99th percentile.
        mean_ms: mean.
        std_ms: standard deviation of the samples.
        sigma_ms: standard deviation of the median: its sampling error and the floor of ``timing.FLOOR``.
        samples: how many samples; one sample is the mean over ``repeats`` runs.
        repeats: runs per sample; 0 where the source does not say.
        overhead_ms: cost of an empty call, subtracted.
        stable: whether the samples agreed (see ``timing``) after at most one repetition; true where the source does
            not say.
        date: day of the measurement (ISO 8601, UTC), or empty.
        schema_version: version of this list of columns.
        m: rows of the input of a matrix product ``[m, k] x [k, n]``; 0 for other operators.
        n: output features of a product.
        k: input features of a product.
        batch: samples in the input; 0 where that was not recorded.
        mode: ``"eager"`` or ``"graph"`` (launched as a captured graph).
        cache: ``"cold"`` or ``"warm"`` last-level cache; empty where that was not recorded.
        driver: version of the accelerator's driver, or empty.
        clock_mhz: clock of the processor while it ran; 0 where that was not recorded.
        memory_clock_mhz: likewise of the memory.
        power_w: mean power of the board while it ran, watt; 0 where that was not recorded.
        source: who measured: ``"this machine"``, a package with its version, or a file.
        licence: of the row, where it comes from others.
    """

    digest: str
    device: str
    hardware: str
    runtime: str
    runtime_version: str
    threads: int
    op: str
    weight_format: str
    activation_format: str
    shape: str
    attributes: str
    executed: str
    conversion_ms: float
    min_ms: float
    median_ms: float
    p90_ms: float
    p99_ms: float
    mean_ms: float
    std_ms: float
    sigma_ms: float
    samples: int
    repeats: int
    overhead_ms: float
    stable: bool
    date: str
    schema_version: int = SCHEMA_VERSION
    m: int = 0
    n: int = 0
    k: int = 0
    batch: int = 0
    mode: str = "eager"
    cache: str = ""
    driver: str = ""
    clock_mhz: float = 0.0
    memory_clock_mhz: float = 0.0
    power_w: float = 0.0
    source: str = "this machine"
    licence: str = ""


@dataclass(frozen=True)
class MeasuredTable:
    """Kernel measurements, found by digest.

    Attributes:
        rows: the measurements; where a digest occurs twice the later row counts.
    """

    rows: tuple[KernelRow, ...] = ()

    @cached_property
    def by_digest(self) -> dict[str, KernelRow]:
        """Digest -> row."""
        return {row.digest: row for row in self.rows}

    def find(self, digest: str) -> KernelRow | None:
        """The row of a kernel, or ``None``."""
        return self.by_digest.get(digest)

    def merged(self, other: MeasuredTable) -> MeasuredTable:
        """Both tables in one, one row a digest; the other wins where they overlap."""
        return MeasuredTable(tuple({**self.by_digest, **other.by_digest}.values()))

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[KernelRow]:
        return iter(self.rows)

    def to_frame(self) -> pd.DataFrame:
        """The rows as a DataFrame, one column per attribute of ``KernelRow``."""
        import pandas as pd

        return pd.DataFrame([asdict(row) for row in self.rows], columns=[item.name for item in fields(KernelRow)])

    def to_parquet(self, path: str | Path) -> None:
        """Write the rows (to the side, synced, then renamed)."""
        with replacing(path) as side:
            self.to_frame().to_parquet(side, index=False)

    @staticmethod
    def from_parquet(path: str | Path) -> MeasuredTable:
        """Read what ``to_parquet`` wrote.

        Raises:
            InvalidInput: the file is missing, is not parquet, or lacks a column.
        """
        import pandas as pd
        import pyarrow as pa

        try:
            frame = pd.read_parquet(path)
        except FileNotFoundError:
            raise InvalidInput(f"no table of measurements at {path}") from None
        except (pa.ArrowInvalid, OSError) as cause:
            raise InvalidInput(f"{path} is not a parquet file of measurements: {cause}") from None
        return MeasuredTable.from_frame(frame, str(path))

    @staticmethod
    def from_frame(frame: pd.DataFrame, where: str = "the table") -> MeasuredTable:
        """The table whose rows a DataFrame holds; columns that this version does not know are left out.

        Raises:
            InvalidInput: a column is missing.
        """
        known = [item.name for item in fields(KernelRow)]
        required = [item.name for item in fields(KernelRow) if item.default is MISSING]
        missing = [name for name in required if name not in frame.columns]
        if missing:
            raise InvalidInput(f"{where} lacks the columns {', '.join(missing)}; it was not written by MeasuredTable")
        present = [name for name in known if name in frame.columns]
        records: list[dict[str, Any]] = frame[present].to_dict("records")  # type: ignore[assignment]
        return MeasuredTable(tuple(KernelRow(**record) for record in records))


def lookup(tables: Iterable[MeasuredTable]) -> dict[str, KernelRow]:
    """Digest -> row over several tables; later tables win."""
    found: dict[str, KernelRow] = {}
    for table in tables:
        found.update(table.by_digest)
    return found
