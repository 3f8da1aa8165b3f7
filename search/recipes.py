r"""Which recipe: calibration settings are compared by real evaluations and successive halving.

Every recipe (weight rounding, observer, equalization, bias correction, batch normalization) is a contestant. It is
calibrated once, and measured on a few reference configurations, on the first batches of the validation data and then,
the better ones, on more. As the loss of a 2-bit configuration would drown that of an 8-bit one, a sample's value for a
recipe is the mean over the configurations c of relative values,

.. math:: v_i = \frac{1}{C} \sum_c \frac{x_{ci}}{s_c},

with :math:`x_{ci}` the metric and :math:`s_c` the median over the recipes of its mean at the first rung. Measurements
are stored in the context of their recipe, so that a search with the recipe finds them, and a further comparison with
more recipes or data goes on from them. The configurations should be such as the search will choose: the uniform ones,
or the exact front's points at a few budgets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..errors import InvalidInput, UnsupportedModel
from ..evaluators import Recipe, evaluation_context, prepared
from ..measurement import Difference, Measurement, difference
from ..space import Configuration, SearchSpace
from ..store import Store
from ..task import Task
from .beginnings import beginnings
from .executor import EvaluatorRecipe, Executor, LocalExecutor
from .fidelity import FACTOR, Bracket, Standing, successive_halving
from .progress import Progress, Silent
from .rungs import Ladder
from .stages import calibrated
from .work import Outcome, Rounds, Work

_METRIC = "relative"  # of the combined values


@dataclass(frozen=True)
class RecipeChoice:
    """Which recipe came out best, and how sure that is.

    Attributes:
        recipe: the best of those that were measured on all data.
        measured: every recipe's combined measurement (see the module docstring) at its highest rung.
        left_out: recipes that cannot be used for this model or gave no finite output, with the reason.
        difference: the best minus the first recipe given, on all data; ``None`` where that one did not get so far, or
            is the best.
        evaluated: candidate evaluations, whole or partial, that were run now.
    """

    recipe: Recipe
    measured: Mapping[Recipe, Measurement]
    left_out: Mapping[Recipe, str]
    difference: Difference | None
    evaluated: int


def choose_recipe(
    task: Task,
    space: SearchSpace,
    recipes: Sequence[Recipe],
    configurations: Sequence[Configuration] | None = None,
    *,
    store: Store | str | None = None,
    executor: Executor | None = None,
    least: int = 16,
    factor: int = FACTOR,
    progress: Progress | None = None,
) -> RecipeChoice:
    """Compare recipes; see the module docstring.

    Args:
        task: model, data, metric.
        space: sites and formats.
        recipes: the first is what the best is compared with.
        configurations: to compare on; default: the uniform ones that round.
        store: a ``Store`` or its URL.
        executor: who measures; default: this process. With Ray, hold a ``ray_cluster`` around the call.
        least: samples of the first rung.
        factor: what share of the recipes goes on.
        progress: who watches.

    Returns:
        The choice.

    Raises:
        InvalidInput: no recipes or configurations, or none of the recipes could be measured.
    """
    if configurations is None:
        wide = {"fp32", "bf16", "fp16"}
        configurations = [each for each in space.uniforms().values() if not set(each.values()) <= wide]
    if not recipes or not configurations:
        raise InvalidInput(
            f"{len(recipes)} recipes and {len(configurations)} configurations; give at least one of each"
        )
    knowledge = store if isinstance(store, Store) else Store(store)
    study = _Study(
        task, space, tuple(dict.fromkeys(configurations)), knowledge, executor or LocalExecutor(), progress or Silent()
    )
    ladder = Ladder.of(task, "validation", least=least, factor=factor)
    standing = study.run(successive_halving(list(dict.fromkeys(recipes)), ladder.batches, factor=factor))
    if not standing.finalists:
        reason = next(iter(study.left_out.values()), "nothing was measured")
        raise InvalidInput(f"no recipe could be measured: {reason}")
    best, first = standing.finalists[0], standing.measured.get(recipes[0])
    whole = first is not None and not first.partial and best != recipes[0]
    gap = difference(standing.measured[best], first) if whole and first is not None else None
    return RecipeChoice(best, standing.measured, study.left_out, gap, study.evaluated)


@dataclass
class _Study:
    """Measures recipes on the reference configurations."""

    task: Task
    space: SearchSpace
    configurations: tuple[Configuration, ...]
    store: Store
    executor: Executor
    progress: Progress
    left_out: dict[Recipe, str] = field(default_factory=dict)
    evaluated: int = 0
    _ready: dict[Recipe, EvaluatorRecipe] = field(default_factory=dict)
    _known: dict[Recipe, dict[Configuration, Measurement]] = field(default_factory=dict)
    _scales: dict[Configuration, float] = field(default_factory=dict)

    def run(self, bracket: Bracket[Recipe]) -> Standing[Recipe]:
        """The bracket to its end."""
        try:
            requests = next(bracket)
            while True:
                for request in requests:
                    self._measure(request.contestant, request.resource)
                self._scale(requests[0].resource)
                requests = bracket.send([self._combined(each.contestant, each.resource) for each in requests])
        except StopIteration as end:
            standing: Standing[Recipe] = end.value
            return standing

    def _measure(self, recipe: Recipe, batches: int) -> None:
        """All configurations on the first batches; what fails leaves the recipe out."""
        try:
            ready = self._prepare(recipe)
        except UnsupportedModel as cause:
            self.left_out[recipe] = str(cause)
            return
        known, wanted = self._known[recipe], self._samples(batches)
        full = batches == len(self.task.validation)
        works = [
            Work(each, "validation", None if full else batches, known.get(each))
            for each in self.configurations
            if each not in known or known[each].samples < wanted
        ]
        context = evaluation_context(
            ready.task, ready.calibration, "validation", reestimate_batch_norm=ready.batch_norm
        )
        if not works:
            return
        with self.progress.stage(f"evaluate recipe {recipe.weights}, {recipe.activations}", len(works)) as advance:

            def commit(outcome: Outcome) -> None:
                if outcome.measurement is None:
                    self.left_out[recipe] = outcome.failure
                else:
                    self.store.save_evaluation(context, outcome.work.configuration, outcome.measurement, outcome.worker)
                    known[outcome.work.configuration] = outcome.measurement
                self.evaluated += 1
                advance(1)

            self.executor.drive(_one_round(works), ready, commit)

    def _prepare(self, recipe: Recipe) -> EvaluatorRecipe:
        """Equalized and calibrated; what the store knows of the recipe's measurements."""
        if recipe not in self._ready:
            task = prepared(self.task, self.space, recipe)
            calibration = calibrated(task, self.space, recipe, self.store, self.progress)
            stored = beginnings(self.store, task, calibration, "validation", reestimate_batch_norm=recipe.batch_norm)
            self._known[recipe] = {each: stored[each.digest] for each in self.configurations if each.digest in stored}
            self._ready[recipe] = EvaluatorRecipe(task, self.space, calibration, recipe.batch_norm)
        return self._ready[recipe]

    def _scale(self, batches: int) -> None:
        """Fix what values are relative to, at the first rung."""
        if self._scales:
            return
        samples = self._samples(batches)
        for each in self.configurations:
            means = [np.mean(known[each].values[:samples]) for known in self._known.values() if each in known]
            middle = float(np.median(np.abs(means))) if means else 0.0
            self._scales[each] = middle or 1.0

    def _combined(self, recipe: Recipe, batches: int) -> Measurement | None:
        if recipe in self.left_out:
            return None
        samples = self._samples(batches)
        parts = [self._known[recipe][each].beginning(samples) for each in self.configurations]
        values = np.mean(
            [np.array(part.values) / self._scales[each] for part, each in zip(parts, self.configurations, strict=True)],
            axis=0,
        )
        found = Measurement.of(_METRIC, "validation", values, sum(part.seconds for part in parts))
        return replace(found, split=parts[0].split)

    def _samples(self, batches: int) -> int:
        return sum(len(batch) for batch in self.task.validation[:batches])


def _one_round(works: list[Work]) -> Rounds:
    yield works
