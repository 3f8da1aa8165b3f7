"""SiteGraph: which site feeds which, read from the exported float model or taken from the order of execution.

A float convolution leaves its output in the runtime's blocked layout, an integer one leaves codes, and the next layer
takes it as it is or has it converted. So what a layer costs depends on the layers that its input really comes from,
through residual additions and pooling, and on whether all that read its output round it: only then is an integer
convolution fused with the rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidInput
from ...space import SearchSpace

if TYPE_CHECKING:
    import onnx

#: Exported products are named ``bitfront/<site>/<number>``.
DOMAIN = "bitfront"
#: Operators that only move elements or bound them: a rounding behind them can be done before them.
_DIRECT = frozenset(
    {"Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "MaxPool", "Identity", "Relu", "Clip", "Max", "Min"}
)
#: Operators that leave the layout of their input alone.
_KEEP_LAYOUT = _DIRECT | {
    "Add", "AveragePool", "BatchNormalization", "Concat", "Div", "Elu", "Erf", "Gelu", "GlobalAveragePool",
    "HardSigmoid", "HardSwish", "LeakyRelu", "Mul", "PRelu", "Pad", "ReduceMean", "Resize", "Sigmoid", "Sub", "Tanh",
}  # fmt: skip
#: Shares of an input below this are left out: the far end of a chain of residual additions.
_SMALLEST_SHARE = 0.1


@dataclass(frozen=True)
class SiteGraph:
    """Neighbourhood of sites (indices into ``space.sites``).

    Attributes:
        edges: int64 array [edges, 2]: source site, reading site.
        share: float64 array [edges]: how much of the reader's input comes from the source; where several branches
            meet, each has an equal share. The shares of a reader add up to 1.
        readers: int64 array [readers, 2]: source site, and a site that reads its output with nothing between them
            that keeps a rounding from being done at the source.
        leaks: boolean array [sites]: whether the output of a site also goes where nothing rounds it.
        ends: boolean array [sites, 2]: whether a site reads the model's input or something that no site made; whether
            its output leaves the model or goes to no site.
        origin: where this was found, for people.
    """

    edges: NDArray[np.int64]
    share: NDArray[np.float64]
    readers: NDArray[np.int64]
    leaks: NDArray[np.bool_]
    ends: NDArray[np.bool_]
    origin: str


def execution_order(space: SearchSpace) -> SiteGraph:
    """Each site feeds the next: all that is known without the model's graph."""
    count = len(space.sites)
    steps = np.stack([np.arange(count - 1), np.arange(1, count)], axis=1) if count > 1 else np.zeros((0, 2), np.int64)
    last = np.arange(count) == count - 1
    ends = np.stack([np.arange(count) == 0, last], axis=1)
    return SiteGraph(steps, np.ones(len(steps)), steps, last, ends, "execution order")


def exported_graph(space: SearchSpace, path: str | Path) -> SiteGraph:
    """The neighbourhood in an exported float model.

    Args:
        space: the sites.
        path: the ONNX file of the float model (an empty configuration, or any that rounds no input), as ``export``
            writes it: the product of a site is named ``bitfront/<site>/<number>``.

    Returns:
        The graph. Sites without a named product (embeddings) have no edges.

    Raises:
        InvalidInput: the file holds no named product of any site, or inputs are rounded in it.
    """
    import onnx

    graph = onnx.load(str(path)).graph
    position = {name: index for index, name in enumerate(space.names)}
    found = _Nodes(graph, position)
    if not found.sites:
        raise InvalidInput(
            f"{path} holds no layer named {DOMAIN}/<site>/<number> of this space; give a file that bitfront exported"
        )
    if any(node.op_type == "QuantizeLinear" for node in graph.node):
        raise InvalidInput(f"{path} rounds inputs; give the export of the float model")
    return found.neighbourhood(len(space.sites), Path(path).name)


def site_of(node_name: str) -> str | None:
    """The site whose product a node is, from its name; ``None`` for other operators."""
    domain, _, rest = node_name.partition("/")
    return (rest.rpartition("/")[0] or None) if domain == DOMAIN else None


class _Nodes:
    """The nodes of a graph by what they make and read."""

    def __init__(self, graph: onnx.GraphProto, position: dict[str, int]) -> None:
        self.maker = {value: node for node in graph.node for value in node.output}
        self.users: dict[str, list[tuple[Any, int]]] = {}
        for node in graph.node:
            for index, value in enumerate(node.input):
                self.users.setdefault(value, []).append((node, index))
        self.constants = _constant_values(graph)
        self.outputs = {value.name for value in graph.output}
        named = ((site_of(node.name), node) for node in graph.node)
        self.sites = {node.output[0]: position[name] for name, node in named if name is not None and name in position}

    def neighbourhood(self, count: int, origin: str) -> SiteGraph:
        shares: dict[tuple[int, int], float] = {}
        readers: set[tuple[int, int]] = set()
        leaks, ends = np.zeros(count, np.bool_), np.zeros((count, 2), np.bool_)
        for value, site in self.sites.items():
            for source, share in self._sources(self.maker[value].input[0], 1.0):
                if source is None:
                    ends[site, 0] = True
                else:
                    shares[source, site] = max(share, shares.get((source, site), 0.0))
            for reader in self._readers(value):
                if reader is None:
                    leaks[site] = True
                else:
                    readers.add((site, reader))
        ends[:, 1] = True
        ends[[source for source, _ in shares], 1] = False
        edges = np.array(sorted(shares), np.int64).reshape(-1, 2)
        weight = np.array([shares[edge] for edge in sorted(shares)])
        for reader in np.unique(edges[:, 1]):
            of_reader = edges[:, 1] == reader
            weight[of_reader] /= weight[of_reader].sum()
        return SiteGraph(edges, weight, np.array(sorted(readers), np.int64).reshape(-1, 2), leaks, ends, origin)

    def _sources(self, value: str, share: float) -> Iterator[tuple[int | None, float]]:
        """The sites that a value comes from with their shares; ``None`` stands for no site."""
        if value in self.sites:
            yield self.sites[value], share
            return
        node = self.maker.get(value)
        if node is None or node.op_type not in _KEEP_LAYOUT:
            yield None, share
            return
        inputs = self._data_inputs(node)
        if share / len(inputs) < _SMALLEST_SHARE:
            inputs = inputs[:1]
        for each in inputs:
            yield from self._sources(each, share / len(inputs))

    def _data_inputs(self, node: Any) -> Sequence[str]:
        """The inputs that are no constants; the first if all are."""
        if node.op_type in ("Reshape", "Unsqueeze", "Squeeze", "Resize", "Pad", "Clip", "ReduceMean"):
            return [node.input[0]]
        return [value for value in node.input if value and value not in self.constants] or [node.input[0]]

    def _readers(self, value: str) -> Iterator[int | None]:
        """The sites that read a value directly; ``None`` stands for any other use."""
        if value in self.outputs:
            yield None
        for node, index in self.users.get(value, []):
            made = node.output[0]
            if made in self.sites and index == 0:
                yield self.sites[made]
            elif node.op_type in _DIRECT and index == 0:
                yield from self._readers(made)
            else:
                yield None


def _constant_values(graph: onnx.GraphProto) -> set[str]:
    """Initializers and what is computed from them alone."""
    known = {tensor.name for tensor in graph.initializer}
    for node in graph.node:  # in topological order
        if node.op_type == "Constant" or (node.input and all(not value or value in known for value in node.input)):
            known.update(node.output)
    return known
