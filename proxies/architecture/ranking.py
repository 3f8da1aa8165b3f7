"""Ranking the networks of a family by zero-cost proxies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ...architecture import Choices, Family
from ...errors import InvalidInput
from ...task import Batch
from .ensemble import ENSEMBLES, rank_sum
from .proxy import ArchitectureProxy, get_architecture_proxy

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from .proxy import Loss


def rank_architectures(
    family: Family,
    choices: Iterable[Choices],
    batch: Any,
    proxies: Sequence[str | ArchitectureProxy] = ENSEMBLES["ensemble"],
    *,
    ensembles: Mapping[str, Sequence[str]] | None = None,
    loss: Loss | None = None,
    seed: int = 0,
    advance: Callable[[int], None] | None = None,
) -> pd.DataFrame:
    """Score every network of a pool, and rank the pool.

    Args:
        family: builds the networks.
        choices: the pool; every architecture once.
        batch: inputs, or (inputs, targets); resized for each network to the family's resolution.
        proxies: names of ``architecture_proxies()``, or proxies.
        ensembles: name -> proxies whose ranks are added; by default those of ``ENSEMBLES`` whose proxies are all asked
            for.
        loss: of outputs and targets; ``None`` is the cross-entropy.
        seed: of what proxies draw.
        advance: called with 1 after every network.

    Returns:
        A row a network, indexed by the digest of its choices, in the order given: ``choices``; for each proxy its score
        under its name (higher is better) and ``NAME_seconds``; each ensemble's rank sum; ``rank``, 1 for the best by
        the first ensemble, or by the first proxy if there is none.

    Raises:
        InvalidInput: no network or proxy, one twice, an unknown proxy, or targets missing that a proxy needs.
        UnsupportedModel: a proxy does not suit a network.
        NonFiniteOutput: a score overflows.
    """
    import pandas as pd

    used = [get_architecture_proxy(each) if isinstance(each, str) else each for each in proxies]
    names = [each.name for each in used]
    if not used or len(set(names)) < len(names):
        raise InvalidInput(f"give one proxy or more, each once; got {', '.join(names) or 'none'}")
    pool = list(choices)
    if not pool or len(set(pool)) < len(pool):
        raise InvalidInput(f"give one architecture or more, each once; got {len(pool)}, {len(set(pool))} different")
    data = Batch.of(batch)
    needy = [each.name for each in used if each.labels]
    if needy and data.targets is None:
        raise InvalidInput(f"proxy {needy[0]} needs targets; give (inputs, targets), or leave it out")
    if ensembles is None:
        ensembles = {name: parts for name, parts in ENSEMBLES.items() if set(parts) <= set(names)}
    rows = []
    for each in pool:
        module = family.build(each)
        rows.append(
            {"choices": each, **score_network(module, resized(data, family.resolution(each)), used, loss, seed)}
        )
        if advance:
            advance(1)
    frame = pd.DataFrame(rows, index=pd.Index([each.digest for each in pool], name="architecture"))
    for name, parts in ensembles.items():
        frame[name] = rank_sum(frame, parts)
    frame["rank"] = frame[next(iter(ensembles), names[0])].rank(ascending=False, method="min").astype(int)
    return frame


def score_network(
    module: nn.Module, batch: Batch, proxies: Sequence[ArchitectureProxy], loss: Loss | None = None, seed: int = 0
) -> dict[str, float]:
    """Scores and seconds of one network: ``{NAME: score, NAME_seconds: wall time}``.

    Raises:
        InvalidInput: targets are missing that a proxy needs.
        UnsupportedModel: a proxy does not suit the network.
        NonFiniteOutput: a score overflows.
    """
    found: dict[str, float] = {}
    for proxy in proxies:
        started = time.perf_counter()
        found[proxy.name] = proxy.score(module, batch, loss, seed)
        found[f"{proxy.name}_seconds"] = time.perf_counter() - started
    return found


def resized(batch: Batch, resolution: int | None) -> Batch:
    """The batch with its images [samples, channels, height, width] resized to squares (bilinear), or as it is."""
    if resolution is None:
        return batch
    size = (resolution, resolution)
    inputs = {
        name: torch.nn.functional.interpolate(each, size, mode="bilinear", align_corners=False)
        if each.ndim == 4 and each.is_floating_point() and each.shape[-2:] != size
        else each
        for name, each in batch.tensors.items()
    }
    return Batch(inputs if isinstance(batch.inputs, dict) else tuple(inputs.values()), batch.targets)
