"""How names and numbers of a run read: metrics with their units, rounded numbers, shares, limits."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .front_document import Front

QUALITY_LABELS = {
    "kl": ("KL divergence", "nats"),
    "loss": ("loss", ""),
    "error": ("error", "fraction of samples"),
    "perplexity": ("perplexity", ""),
    "relative_error": ("relative error", ""),
    "cosine": ("cosine distance", ""),
    "top5_error": ("top-5 error", "fraction of samples"),
}
PRICE_LABELS = {
    "latency_ms": ("latency", "ms"),
    "size_mb": ("size", "MB"),
    "energy_mj": ("energy", "mJ"),
    "memory_mb": ("memory", "MB"),
    "avg_bits": ("average weight bits", "bits"),
    "effective_bits": ("effective weight bits", "bits"),
    "macs": ("multiply-accumulates", "MAC"),
    "bops": ("bit operations", "BOP"),
}


def number(value: float) -> str:
    """Four significant digits, thousands separated: ``0.01234``, ``12,346``."""
    if not math.isfinite(value):
        return "—"
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"


def count(amount: float, noun: str) -> str:
    """``1 layer``, ``2 layers``."""
    return f"{amount:.0f} {noun}" + ("" if amount == 1 else "s")


def share_text(share: float) -> str:
    """A share as whole percent, ``< 1 %`` for a little."""
    return "< 1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"


def limit_text(metric: str, value: float) -> str:
    """A constraint with its unit, such as ``size ≤ 3 MB``."""
    return f"{label(metric).split(' (')[0]} ≤ {number(value)} {unit(metric)}".rstrip()


def unit(metric: str) -> str:
    """The unit of a price or quality metric, ``""`` if it has none."""
    return (PRICE_LABELS.get(metric) or QUALITY_LABELS.get(metric) or ("", ""))[1]


def label(metric: str) -> str:
    """The name of a metric with its unit, such as ``latency (ms)``; unknown ones keep their own name."""
    known = PRICE_LABELS.get(metric) or QUALITY_LABELS.get(metric)
    if known is None:
        return metric
    return f"{known[0]} ({known[1]})" if known[1] and known[1] not in known[0] else known[0]


def price_label(front: Front, metric: str) -> str:
    """:func:`label`, with the source where it is a model and no measurement: ``latency (ms), roofline``."""
    modelled = [source for source in front.sources(metric) if source not in ("measured", "exact")]
    return ", ".join([label(metric), *modelled])
