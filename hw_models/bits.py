r"""Average bits per weight.

.. math:: \bar b = \frac{\sum_i n_i\, b(f_i)}{\sum_i n_i}

over the sites of the space, n elements of a weight and b its nominal bits (``avg_bits``, the field's usual figure) or
its nominal bits with scales and zero-points spread over the elements (``effective_bits``).
"""

from __future__ import annotations

from ..space import SearchSpace
from .cost_model import Question
from .prices import PriceTable, exact


def avg_bits(space: SearchSpace, question: Question) -> PriceTable:
    """Nominal weight bits, averaged over the weight elements of the sites."""
    total = sum(site.elements for site in space.sites)
    return exact(
        space,
        "avg_bits",
        "bits per weight",
        lambda site, format_: site.elements * format_.weight_bits / total,
        "exact: nominal weight bits averaged over the weight elements of the sites",
    )


def effective_bits(space: SearchSpace, question: Question) -> PriceTable:
    """Nominal weight bits plus those of the scales, averaged over the weight elements of the sites."""
    total = sum(site.elements for site in space.sites)
    return exact(
        space,
        "effective_bits",
        "bits per weight",
        lambda site, format_: site.elements * format_.effective_bits(site.weight_shape, site.channel_axis) / total,
        "exact: nominal weight bits, scales and zero-points averaged over the weight elements of the sites",
    )
