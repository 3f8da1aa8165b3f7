"""The recipe searched in the same run: which are tried, on what they are compared, and what is told of the choice.

``auto`` tries the asked recipe and one change of it at a time, as far as the model and the formats make a difference;
settings that reconstruct layers (``gptq``, ``adaround``, ``adaquant``) take minutes and have to be named. Recipes are
compared on the uniform configurations that round, and on points of the exact front of the weight error against the
size, the optimum under the constraints among them: such as a search will choose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any, Literal

import numpy as np
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import InvalidInput
from ..evaluators import Recipe, prepared
from ..formats import Format
from ..hw_models import price
from ..space import Configuration, SearchSpace
from ..store import Store
from ..task import Task
from .problem import Problem, spread
from .progress import Progress
from .recipes import RecipeChoice, choose_recipe
from .stages import calibrated, scores_of

RecipeArgument = Recipe | Sequence[Recipe] | Literal["auto"] | None
_WIDE = {"fp32", "bf16", "fp16"}
_POINTS = 3  # of the exact front
_UNIFORMS = 4  # most uniform configurations
_EXACT = ("size_mb", "avg_bits", "effective_bits", "bops")  # priced without a device


def asked_recipes(given: RecipeArgument, task: Task, space: SearchSpace) -> tuple[Recipe, ...]:
    """The recipes to choose from; one: nothing is chosen.

    Args:
        given: one recipe, several, ``"auto"`` or ``None`` (the default one).
        task: the model tells whether it has batch normalization.
        space: the formats tell whether activations are quantized.

    Raises:
        InvalidInput: it is none of these.
    """
    if given is None:
        return (Recipe(),)
    if isinstance(given, Recipe):
        return (given,)
    if given == "auto":
        return auto_recipes(Recipe(), task, space)
    recipes = tuple(dict.fromkeys(given))
    if not recipes or not all(isinstance(each, Recipe) for each in recipes):
        raise InvalidInput(f"recipe={given!r}; give a Recipe, several of them, or 'auto'")
    return recipes


def auto_recipes(base: Recipe, task: Task, space: SearchSpace) -> tuple[Recipe, ...]:
    """The recipe itself and one change at a time that can matter for this model and these formats."""
    tried = [base, replace(base, bias_correction=True)]
    if any(isinstance(module, _BatchNorm) for module in task.model.modules()):
        tried += [replace(base, batch_norm=True), replace(base, equalization="cross_layer")]
    if any(Format.parse(name).quantizes_activations for name in space.formats):
        tried += [replace(base, activations=name) for name in ("percentile", "moving_average")]
        tried.append(replace(base, equalization="smoothquant"))
    return tuple(dict.fromkeys(tried))


def references(
    task: Task,
    space: SearchSpace,
    recipe: Recipe,
    constraints: Mapping[str, float],
    store: Store,
    progress: Progress,
    seed: int = 0,
) -> tuple[Configuration, ...]:
    """Configurations to compare recipes on; see the module docstring.

    Args:
        task: model and data.
        space: sites and formats.
        recipe: of the weight errors.
        constraints: of the search; those on prices that need no device count here.
        store: where calibration and scores are kept.
        progress: who watches.
        seed: of the scores.
    """
    uniforms = [each for each in space.uniforms().values() if not set(each.values()) <= _WIDE]
    step = max(1, -(-len(uniforms) // _UNIFORMS))
    chosen = uniforms[::step]
    made = prepared(task, space, recipe)
    calibration = calibrated(made, space, recipe, store, progress)
    scores, _ = scores_of(made, space, calibration, ["weight_mse"], seed, store, progress, True)
    if not scores:
        return tuple(chosen)
    limits = {name: limit for name, limit in constraints.items() if name in _EXACT}
    problem = Problem(
        space, scores, price(space, metrics=tuple({"size_mb": 0, **limits})), ("quality", "size_mb"), limits
    )
    front = problem.front("weight_mse", "size_mb")
    points = [problem.solve("weight_mse", limits)] if limits else []
    if len(front):
        covered = np.zeros(len(front), dtype=bool)
        covered[[0, -1]] = True  # the ends are uniform, or almost
        points += [space.configuration(front[at]) for at in spread(problem.totals(front, "size_mb"), _POINTS, covered)]
    return tuple(dict.fromkeys([*chosen, *points]))


def search_recipe(
    task: Task,
    space: SearchSpace,
    recipes: Sequence[Recipe],
    constraints: Mapping[str, float],
    store: Store,
    progress: Progress,
    seed: int = 0,
) -> RecipeChoice:
    """Choose among recipes by successive halving, in this process: few evaluations, each with its own calibration.

    Args:
        task: model and data, as they are before any recipe.
        space: sites and formats.
        recipes: the first is what the best is compared with.
        constraints: of the search.
        store: keeps every measurement, so that the search finds those of the chosen recipe.
        progress: who watches.
        seed: of the scores.

    Raises:
        InvalidInput: none of the recipes could be measured.
    """
    compared = references(task, space, recipes[0], constraints, store, progress, seed)
    found = choose_recipe(task, space, recipes, compared, store=store, progress=progress)
    progress.note(told(found, recipes[0]))
    return found


def plain(found: RecipeChoice) -> dict[str, Any]:
    """A choice as plain data, for ``result.report`` and ``front.json``."""
    tried = [
        {
            "recipe": asdict(recipe),
            "name": short(recipe),
            "value": each.value,
            "low": each.low,
            "high": each.high,
            "samples": each.samples,
            "whole": not each.partial,
        }
        for recipe, each in found.measured.items()
    ]
    return {
        "chosen": asdict(found.recipe),
        "name": short(found.recipe),
        "tried": tried,
        "left_out": {short(recipe): reason for recipe, reason in found.left_out.items()},
        "difference": asdict(found.difference) if found.difference else None,
        "evaluated": found.evaluated,
    }


def told(found: RecipeChoice, first: Recipe) -> str:
    """The choice in one line."""
    count = len(found.measured) + len(found.left_out)
    if found.recipe == first:
        return f"recipe: {short(first)} stays; none of the {count - 1} others was better on the validation data"
    against = f"of {count} tried"
    if found.difference is not None:
        gap, sure = found.difference, found.difference.better
        against = (
            f"against {short(first)}: relative loss {gap.value:+.3g} [{gap.low:+.3g}, {gap.high:+.3g}]"
            f"{'' if sure else ', a tie'}, of {count} tried"
        )
    return f"recipe: {short(found.recipe)} chosen, {against}"


def short(recipe: Recipe) -> str:
    """What of a recipe is not the default."""
    default = Recipe()
    given = [(each.name, getattr(recipe, each.name)) for each in fields(recipe)]
    changed = [f"{name}={value}" for name, value in given if value != getattr(default, name)]
    return ", ".join(changed) or "default"
