"""``prepared``: the task with a float model that computes the same and is easier to quantize."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from ...errors import UnsupportedModel
from ...space import SearchSpace
from ...task import Batch, Task
from ..float_run import run_float
from ..recipe import Recipe
from .channels import ensure_bias, output_channels
from .cross_layer import equalize
from .smoothquant import smooth

_BIASED = ("linear", "hf_conv1d", "conv")
_BOUND = 1e-3


def prepared(task: Task, space: SearchSpace, recipe: Recipe) -> Task:
    """Apply the equalization of a recipe to a copy of the model, and give its layers the bias that a correction needs.

    Module paths, parameter names and weight shapes stay, so ``space`` and its configurations hold for the result. It
    depends on the model, the calibration data, the recipe and which layers are sites, not on the formats offered.

    Args:
        task: model and data; nothing of it is changed, and only its calibration data is read.
        space: its sites.
        recipe: ``equalization`` and ``bias_correction`` are looked at.

    Returns:
        The task itself if nothing is to be done, else one with a new model and the same batches.

    Raises:
        UnsupportedModel: the model cannot be copied, or computes something else after equalization.
    """
    if recipe.equalization == "none" and not recipe.bias_correction:
        return task
    try:
        model = copy.deepcopy(task.model)
    except Exception as cause:
        raise UnsupportedModel(
            f"{type(task.model).__name__} cannot be copied ({type(cause).__name__}: {cause}); use a recipe with "
            "equalization='none' and bias_correction=False"
        ) from cause
    if recipe.equalization == "cross_layer":
        equalize(model, space, task.calibration[0])
    elif recipe.equalization == "smoothquant":
        smooth(model, space, task.calibration)
    if recipe.equalization != "none":
        _check(task.model, model, task.calibration[0], recipe.equalization)
    if recipe.bias_correction:
        add_biases(model, space)
    return Task(
        model,
        calibration=task.calibration,
        validation=task.validation,
        holdout=task.holdout,
        loss=task.loss,
        quality=task.quality,
        name=task.name,
    )


def add_biases(model: nn.Module, space: SearchSpace) -> None:
    """Give every linear layer and convolution of a space a bias of zeros where it has none."""
    for site in space.sites:
        if site.kind.startswith(_BIASED):
            for path in site.modules:
                module = model.get_submodule(path)
                if not isinstance(module, nn.Embedding):
                    ensure_bias(module, output_channels(module, site))


def _check(before: nn.Module, after: nn.Module, batch: Batch, what: str) -> None:
    """Compare the outputs of both models.

    Raises:
        UnsupportedModel: they differ by more than rounding.
    """
    with torch.no_grad():
        wanted, given = (_floats(run_float(model, batch, "calibration")) for model in (before, after))
    for expected, found in zip(wanted, given, strict=True):
        error = float((found.double() - expected.double()).norm() / expected.double().norm().clamp(min=1e-30))
        bound = max(_BOUND, 16 * torch.finfo(expected.dtype).eps)
        if not error <= bound:
            raise UnsupportedModel(
                f"{what} changes what {type(before).__name__} computes (relative error {error:.3g}, bound "
                f"{bound:.3g}): its forward pass reads layers in a way that cannot be seen; use equalization='none'"
            )


def _floats(output: object) -> list[Tensor]:
    leaves = _pytree.tree_leaves(output)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]
