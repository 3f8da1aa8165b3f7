r"""Bit operations.

.. math:: \mathrm{BOPs} = \sum_i \mathrm{MACs}_i \, b_w(f_i) \, b_a(f_i)

(van Baalen et al. 2020, arXiv:2005.07093; Yao et al. 2021, HAWQ-V3, arXiv:2011.10680.) Plain bit operations, not 10^9
of them. Where a format leaves the activations alone, b_a is the width of the model's own float type.
"""

from __future__ import annotations

from ..space import SearchSpace
from .cost_model import Question
from .prices import PriceTable, exact


def bops(space: SearchSpace, question: Question) -> PriceTable:
    """Bit operations (MACs x weight bits x activation bits) of a forward pass of ``question.batch`` samples."""
    return exact(
        space,
        "bops",
        "bit operations",
        lambda site, format_: (
            site.macs * question.batch * format_.weight_bits * (format_.activation_bits or site.weight_bits)
        ),
        f"exact: MACs x weight bits x activation bits at batch {question.batch}",
    )
