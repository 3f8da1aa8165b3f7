"""OtherOperators: what a forward pass spends outside the sites, from one profile of the exported float model."""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..onnx_session import EVENT_END
from .exports import Feeds, LoadedExport
from .graph import site_of

#: Runs of the profiled model; the first are warm-up.
RUNS, _WARM_UP = 20, 3
_PRODUCTS = ("Conv", "ConvTranspose", "FusedConv", "Gemm", "FusedGemm", "MatMul")
_LAYOUT = ("ReorderInput", "ReorderOutput")
#: What onnxruntime appends to the names of nodes that it rewrites.
_SUFFIX = re.compile(r"(_nchwc|_token_\d+)+$")


@dataclass(frozen=True)
class OtherOperators:
    """Time outside the sites.

    Attributes:
        ms: operator -> milliseconds of a forward pass, over all its nodes.
        nodes: operator -> how many nodes.
    """

    ms: Mapping[str, float]
    nodes: Mapping[str, int]

    @property
    def total(self) -> float:
        """Milliseconds of a forward pass."""
        return sum(self.ms.values())


def other_operators(path: str | Path, feeds: Feeds, threads: int = 1, runs: int = RUNS) -> OtherOperators:
    """Profile the exported float model and add up what is no site.

    Args:
        path: ONNX file of the float model as ``export`` writes it.
        feeds: its inputs, by name or in order; batch and sequence length are theirs.
        threads: intra-op threads.
        runs: how often it is run.

    Returns:
        The medians per node, added up by operator. Changes of layout are left out: they belong to the convolutions.
    """
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        loaded = LoadedExport(path, feeds, threads, profile=str(Path(folder) / "profile"))
        for _ in range(_WARM_UP + runs):
            loaded.run()
        events = json.loads(Path(loaded.session.end_profiling()).read_text())
    durations: dict[str, list[float]] = {}
    operator: dict[str, str] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(EVENT_END):
            name = event["name"].removesuffix(EVENT_END)
            operator[name] = event["args"]["op_name"]
            durations.setdefault(name, []).append(1e-3 * event["dur"])
    outside = _Outside(onnx.load(str(path)).graph.node)
    ms: Counter[str] = Counter()
    nodes: Counter[str] = Counter()
    for name, op in operator.items():
        if outside(name, op):
            ms[op] += float(np.median(durations[name][_WARM_UP:]))  # type: ignore[assignment]
            nodes[op] += 1
    return OtherOperators(dict(ms.most_common()), dict(nodes))


class _Outside:
    """Whether a node of the optimized graph belongs to no site.

    A convolution that was fused with what follows it carries the name of what follows: the way back to the product
    leads through operators with one data input.
    """

    def __init__(self, nodes: Iterable[Any]) -> None:
        self._by_name = {node.name: node for node in nodes}
        self._maker = {value: node for node in self._by_name.values() for value in node.output}

    def __call__(self, name: str, op: str) -> bool:
        if site_of(name) is not None or op in _LAYOUT:
            return False
        if op not in _PRODUCTS:
            return not self._adds_bias(name)
        plain = _SUFFIX.sub("", name)
        node = self._maker.get(plain) or self._by_name.get(plain)
        while node is not None and node.op_type not in _PRODUCTS:
            node = next((self._maker[value] for value in node.input if value in self._maker), None)
        # a product of two activations is no site; one that cannot be traced is taken for a site's
        return node is not None and site_of(node.name) is None

    def _adds_bias(self, name: str) -> bool:
        """Whether a node adds a constant to the product of a site: the site's kernel does that too."""
        node = self._by_name.get(name)
        if node is None or node.op_type != "Add":
            return False
        makers = [self._maker.get(value) for value in node.input]
        return None in makers and any(maker is not None and site_of(maker.name) is not None for maker in makers)
