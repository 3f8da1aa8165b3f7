"""``reconstructed``: the codes and scales of every site and weight format by one method."""

from __future__ import annotations

from torch import Tensor, nn

from ...formats import weight_name
from ...space import SearchSpace
from ...task import Task
from ..calibration import Advance, Calibration, narrow_weights
from ..quantizers import Layout, WeightScale
from .adaquant import AdaQuant
from .adaround import AdaRound
from .gptq import Gptq
from .moments import second_moments
from .problem import LayerProblem, Reconstruction

#: The methods by the names of ``recipe.WEIGHTS``.
METHODS: dict[str, type[Gptq] | type[AdaRound] | type[AdaQuant]] = {
    "gptq": Gptq,
    "adaround": AdaRound,
    "adaquant": AdaQuant,
}

Codes = dict[tuple[str, str], Tensor]
Scales = dict[tuple[str, str], WeightScale]


def reconstructed(
    task: Task,
    space: SearchSpace,
    calibration: Calibration,
    method: str | Reconstruction,
    advance: Advance | None = None,
    seed: int = 0,
) -> tuple[Codes, Scales]:
    """Choose codes that keep the output of every layer on the calibration data.

    Embeddings are left to rounding to nearest: what enters one is a row of zeros with a single one, so the moments are
    diagonal, the error is a sum over the weights, and nearest is best. Channels whose error the method does not lower
    are rounded to nearest as well, and so are layers that the calibration data never reaches.

    Args:
        task: model and calibration data; validation data is never read.
        space: sites and formats.
        calibration: the scales to start from, of every site and weight format.
        method: ``"gptq"``, ``"adaround"``, ``"adaquant"``, or a method with settings of its own.
        advance: called with 1 after each site.
        seed: of the sampling of input rows; the same seed gives the same codes.

    Returns:
        (site name, name of the weight format) -> the codes, of the weight's shape; and likewise the scales that they
        are under, which only AdaQuant changes.

    Raises:
        NonFiniteOutput: an activation is NaN or infinite; the message names the layer.
    """
    solve: Reconstruction = METHODS[method]() if isinstance(method, str) else method
    codes: Codes = {}
    scales: Scales = {}
    looked_up = [
        all(isinstance(task.model.get_submodule(name), nn.Embedding) for name in site.modules) for site in space.sites
    ]
    sites = [site for site, skipped in zip(space.sites, looked_up, strict=True) if not skipped and narrow_weights(site)]
    for _ in range(len(space.sites) - len(sites)):
        if advance:
            advance(1)
    for site, moment in second_moments(task, sites, seed=seed):
        weight = task.model.get_parameter(site.parameter)
        targets = narrow_weights(site)
        problems = [
            LayerProblem(weight, Layout.of(weight, target, site.channel_axis), calibration.scales(site, target), moment)
            for target in targets
        ]
        for target, found in zip(targets, solve(problems), strict=True):
            codes[site.name, weight_name(target)] = found.codes
            scales[site.name, weight_name(target)] = found.scales
        if advance:
            advance(1)
    return codes, scales
