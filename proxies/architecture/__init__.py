"""Zero-cost proxies of whole networks: how good an architecture will be once trained, told before it is."""

from __future__ import annotations

from .ensemble import ENSEMBLES, rank_sum
from .proxy import ArchitectureProxy, Loss, architecture_proxies, get_architecture_proxy
from .ranking import rank_architectures, resized, score_network

__all__ = [
    "ENSEMBLES",
    "ArchitectureProxy",
    "Loss",
    "architecture_proxies",
    "get_architecture_proxy",
    "rank_architectures",
    "rank_sum",
    "resized",
    "score_network",
]
