"""Multiply-accumulates: a constant of the model, the same in every format."""

from __future__ import annotations

from ..space import SearchSpace
from .cost_model import Question
from .prices import PriceTable, exact


def macs(space: SearchSpace, question: Question) -> PriceTable:
    """Multiply-accumulates of a forward pass of ``question.batch`` samples, over all calls of each site."""
    return exact(
        space,
        "macs",
        "multiply-accumulates",
        lambda site, format_: site.macs * question.batch,
        f"exact: multiply-accumulates of the sites at batch {question.batch}",
    )
