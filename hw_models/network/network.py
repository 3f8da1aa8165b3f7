"""Network: what was measured of one model as a whole, beside its kernels; kept as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InvalidInput
from ...files import write_text
from ...space import SearchSpace
from ..onnx_runner import OnnxRuntimeRunner, processor
from .exports import ROUNDS, Export, Feeds, MeasuredExport, time_exports
from .graph import SiteGraph, exported_graph
from .operators import OtherOperators, other_operators

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Network:
    """A model on this machine: its graph, its operators outside the sites, and exports of it that were timed.

    Attributes:
        sites: names of the sites, in order.
        batch: samples per forward pass.
        graph: which site feeds which.
        operators: time outside the sites.
        exports: timed whole models; what the residual is fitted to.
        hardware: model name of the processor.
        runtime: name of the runtime.
        runtime_version: its version.
        threads: intra-op threads.
        date: day of the measurement (ISO 8601, UTC).
    """

    sites: tuple[str, ...]
    batch: int
    graph: SiteGraph
    operators: OtherOperators
    exports: tuple[MeasuredExport, ...]
    hardware: str
    runtime: str
    runtime_version: str
    threads: int
    date: str

    def check(self, space: SearchSpace, batch: int, threads: int) -> None:
        """Refuse to price another model, batch or number of threads with this.

        Raises:
            InvalidInput: names what differs.
        """
        asked = {"batch": batch, "threads": threads, "sites": tuple(space.names)}
        mine = {"batch": self.batch, "threads": self.threads, "sites": self.sites}
        for what, value in asked.items():
            if value != mine[what]:
                told = f"{len(mine[what])} other sites" if what == "sites" else f"{what} {mine[what]}"  # type: ignore[arg-type]
                wanted = f"the {len(space.names)} of this space" if what == "sites" else value
                raise InvalidInput(f"the whole model was measured with {told}, asked is {wanted}; measure it again")

    def check_machine(self) -> None:
        """Refuse to price this machine with a measurement of another processor or runtime.

        Raises:
            InvalidInput: names both.
        """
        here = (processor(), *OnnxRuntimeRunner(self.threads).runtime)
        there = (self.hardware, self.runtime, self.runtime_version)
        if here != there:
            raise InvalidInput(
                f"the whole model was measured on {', '.join(there)}; here are {', '.join(here)}: measure it here"
            )

    def to_json(self, path: str | Path) -> None:
        """Write everything as JSON."""
        write_text(Path(path), json.dumps(self.to_dict(), indent=2) + "\n")

    @staticmethod
    def from_json(path: str | Path) -> Network:
        """Read what ``to_json`` wrote.

        Raises:
            InvalidInput: the file is missing or holds something else.
        """
        try:
            document = json.loads(Path(path).read_text())
        except FileNotFoundError:
            raise InvalidInput(f"no measured network at {path}; write one with Network.to_json") from None
        except ValueError as cause:
            raise InvalidInput(f"{path} is not JSON: {cause}") from None
        return Network.from_dict(document)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        document = asdict(self)
        document["graph"] = {
            name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(self.graph).items()
        }
        return {"schema_version": SCHEMA_VERSION, **document}

    @staticmethod
    def from_dict(document: Mapping[str, Any]) -> Network:
        """What ``to_dict`` gave.

        Raises:
            InvalidInput: another version, or something is missing.
        """
        fields = dict(document)
        if fields.pop("schema_version", None) != SCHEMA_VERSION:
            raise InvalidInput(f"not a measured network of version {SCHEMA_VERSION}; measure the model again")
        try:
            graph = fields.pop("graph")
            neighbours = SiteGraph(
                np.array(graph["edges"], np.int64).reshape(-1, 2),
                np.array(graph["share"], np.float64),
                np.array(graph["readers"], np.int64).reshape(-1, 2),
                np.array(graph["leaks"], np.bool_),
                np.array(graph["ends"], np.bool_).reshape(-1, 2),
                graph["origin"],
            )
            return Network(
                **{
                    **fields,
                    "sites": tuple(fields["sites"]),
                    "graph": neighbours,
                    "operators": OtherOperators(**fields["operators"]),
                    "exports": tuple(MeasuredExport(**export) for export in fields["exports"]),
                }
            )
        except (KeyError, TypeError) as cause:
            raise InvalidInput(f"not a measured network: {cause}; measure the model again") from None


def measure_network(
    space: SearchSpace,
    reference: str | Path,
    exports: Sequence[Export],
    feeds: Feeds,
    batch: int = 1,
    threads: int = 1,
    rounds: int = ROUNDS,
    advance: Callable[[int], None] | None = None,
) -> Network:
    """Read the graph of the exported float model, profile it, and time exports of other configurations beside it.

    Args:
        space: the sites.
        reference: ONNX file of the float model as ``bitfront.export`` writes it with an empty configuration, or one
            that rounds no input.
        exports: files of configurations; about 8, uniform ones and mixtures (``design``).
        feeds: inputs of one call, by name or in order; their batch and sequence length are what is priced.
        batch: samples in ``feeds``.
        threads: intra-op threads.
        rounds: samples of each export.
        advance: called with the runs done, ``rounds`` per export in all.

    Returns:
        What ``price(..., network=...)`` takes.

    Raises:
        InvalidInput: a file is no such export, the inputs do not fit, or a configuration is not of this space.
    """
    for export in exports:
        if set(export.formats) != set(space.names):
            raise InvalidInput(f"export {export.label!r} does not give a format for each of the sites of the space")
    runner = OnnxRuntimeRunner(threads)
    graph = exported_graph(space, reference)
    operators = other_operators(reference, feeds, threads)
    measured = time_exports(exports, reference, feeds, threads, rounds, advance)
    return Network(
        tuple(space.names),
        batch,
        graph,
        operators,
        tuple(measured),
        processor(),
        *runner.runtime,
        threads,
        datetime.now(UTC).date().isoformat(),
    )
