"""``calibrate``: chooses the scales, codes and ranges of a space by a recipe."""

from __future__ import annotations

import torch

from ..errors import NonFiniteOutput
from ..formats import weight_name
from ..space import SearchSpace
from ..task import Task
from .bias_correction import bias_shifts
from .calibration import Advance, Calibration, narrow_weights, static_activations
from .observers import observed_ranges
from .quantizers import WeightScale, choose_scales
from .recipe import Recipe
from .reconstruction import reconstructed


def calibrate(
    task: Task, space: SearchSpace, recipe: Recipe | None = None, advance: Advance | None = None
) -> Calibration:
    """Choose everything that the quantizers need, from the weights and the calibration data alone.

    Args:
        task: model and calibration data; validation data is never read.
        space: sites and formats; activation ranges are only gathered where a format needs them.
        recipe: how; by default weights to nearest with scales of least squared error, ranges of least squared error.
        advance: called with 1 after each of ``calibration_steps``, for progress bars.

    Returns:
        The calibration.

    Raises:
        NonFiniteOutput: a weight or an activation is NaN or infinite; the message names the layer.
    """
    recipe = recipe or Recipe()
    found = Calibration(_scales(task, space, recipe, advance))
    if needs_ranges(space):
        found.ranges.update(observed_ranges(task, space, recipe.activations, advance))
    if recipe.reconstructs:
        codes, scales = reconstructed(task, space, found, recipe.weights, advance)
        found.codes.update(codes)
        found.weights.update(scales)
    if recipe.bias_correction:
        found.biases.update(bias_shifts(task, space, found, advance))
    return found


def calibration_steps(task: Task, space: SearchSpace, recipe: Recipe | None = None) -> int:
    """How many steps ``calibrate`` reports: one a site, and one a calibration batch for each pass over the data."""
    recipe, sites, batches = recipe or Recipe(), len(space.sites), len(task.calibration)
    return (
        sites
        + (batches if needs_ranges(space) else 0)
        + (sites if recipe.reconstructs else 0)
        + (batches if recipe.bias_correction else 0)
    )


def needs_ranges(space: SearchSpace) -> bool:
    """Whether any site offers a format with static activation scales."""
    return any(static_activations(site) for site in space.sites)


def _scales(
    task: Task, space: SearchSpace, recipe: Recipe, advance: Advance | None
) -> dict[tuple[str, str], WeightScale]:
    method = "minmax" if recipe.weights == "minmax" else "mse"
    scales = {}
    for site in space.sites:
        weight = task.model.get_parameter(site.parameter)
        if not bool(torch.isfinite(weight).all()):
            raise NonFiniteOutput(f"the weight of {site.name} holds NaN or infinity")
        for target in narrow_weights(site):
            scales[site.name, weight_name(target)] = choose_scales(weight, target, site.channel_axis, method)
        if advance:
            advance(1)
    return scales
