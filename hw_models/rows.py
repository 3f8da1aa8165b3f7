"""KernelRow, MeasuredTable: measured latencies, one row per kernel, kept in parquet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInput
from ..files import replacing

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class KernelRow:
    """One kernel, timed.

    Attributes:
        digest: content hash of everything that identifies the kernel and where it ran: the key.
        device: ``"cpu"`` or the name of an accelerator.
        hardware: model name of the processor.
        runtime: such as ``"onnxruntime"``.
        runtime_version: its version.
        threads: intra-op threads.
        op: ONNX operator (Conv, ConvTranspose, Gemm, MatMul, Gather).
        weight_format: what the kernel reads: fp32 or int8 (see ``kernels``).
        activation_format: what enters the kernel: fp32, bf16, uint8, int64 (indices).
        shape: ``input;weight`` such as ``1x32x112x112;16x32x1x1`` (the weight as torch lays it out).
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
        repeats: runs per sample.
        overhead_ms: cost of an empty call, subtracted.
        stable: whether the samples agreed (see ``timing``) after at most one repetition.
        date: day of the measurement (ISO 8601, UTC).
        schema_version: version of this list of columns.
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
        missing = [name for name in known if name not in frame.columns and name != "schema_version"]
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
