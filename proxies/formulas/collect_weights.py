"""Statistics of the weights themselves and of what rounding does to them: no pass over the model."""

from __future__ import annotations

import numpy as np

from ...formats import Format, weight_name
from ..entropy import entropy
from ..kurtosis import kurtosis
from .collect_context import Context, joined

_BINS = 256  # of the histogram whose entropy is taken


def collect_weights(context: Context, wanted: frozenset[str]) -> dict[str, np.ndarray]:
    """Weights and their moments (``weight``, ``weight_deviation``, ``weight_max``, ``kurtosis``, ``entropy``)."""
    originals = [context.task.model.get_parameter(site.parameter).detach() for site in context.space.sites]
    found: dict[str, np.ndarray] = {}
    if "weight" in wanted:
        found["weight"] = context.drawn(originals)
    if "weight_deviation" in wanted:
        found["weight_deviation"] = np.array([float(each.double().std(correction=0)) for each in originals])
    if "weight_max" in wanted:
        found["weight_max"] = np.array([float(each.float().abs().max()) for each in originals])
    if "kurtosis" in wanted:
        found["kurtosis"] = np.array([kurtosis(each) for each in originals])
    if "entropy" in wanted:
        found["entropy"] = np.array([entropy(each.float().cpu().histc(_BINS)) for each in originals])
    return found


def collect_errors(context: Context, wanted: frozenset[str]) -> dict[str, np.ndarray]:
    """Rounding errors: ``error``, Q(W) - W of the drawn elements, and ``weight_error``, its square over the weight.

    The latter is what ``perturbation.weight_errors`` gives; here no weight is rounded twice.
    """
    space = context.space
    drawn: list[list[np.ndarray]] = [[] for _ in space.formats]
    squares = np.zeros((len(space.sites), len(space.formats)))
    for row, (site, block) in enumerate(zip(space.sites, context.blocks, strict=True)):
        original = context.task.model.get_parameter(site.parameter).detach()
        known: dict[str, tuple[np.ndarray, float]] = {}
        for column, name in enumerate(space.formats):
            if not site.offers(name):
                drawn[column].append(np.zeros(len(block.rows) * len(block.columns), dtype=np.float32))
                continue
            target = Format.parse(name).weight
            if weight_name(target) not in known:
                error = context.quantized.weight(site, target).float() - original.float()
                known[weight_name(target)] = block.of(error).cpu().numpy(), float(error.double().square().sum())
            elements, squares[row, column] = known[weight_name(target)]
            drawn[column].append(elements)
        context.step()
    return {"error": np.stack([joined(each) for each in drawn]), "weight_error": squares}
