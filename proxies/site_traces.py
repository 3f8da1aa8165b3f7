"""Hessian traces of all sites, drawn until a rule of the caller's says that they are known well enough."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from ..errors import InvalidInput
from ..evaluators.float_run import on_device, run_float
from ..evaluators.metrics import output_tensor
from .block_products import BlockProducts
from .gauss_newton_probes import GaussNewtonProbes
from .hutchinson import hutchinson
from .hutchinson_probes import HutchinsonProbes
from .hutchpp import hutchpp
from .likelihood import check_softmax, likelihood
from .probing import WEIGHTS, labelled
from .stopping import relative_errors
from .stratified import Stratified
from .visits import Probes, Visits
from .xtrace import xtrace

if TYPE_CHECKING:
    from ..space import SearchSpace
    from ..task import Batch, Task
    from .sensitivity import Advance

Estimator = Literal["auto", "gauss_newton", "hutchinson", "hutch++", "xtrace"]
Open = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(traces [2, sites], standard errors [2, sites]) -> bool [sites]: which need further probes."""

_BY_PRODUCTS = {"hutchinson": hutchinson, "hutch++": hutchpp, "xtrace": xtrace}
_FEW = 8  # strata below which more draws are needed before their spread says something


@dataclass(frozen=True)
class Setting:
    """What is drawn.

    Attributes:
        estimator: see ``hessian_trace``.
        probes: random vectors at most, for each sample, micro-batch or (``hutch++``, ``xtrace``) site.
        tolerance: relative standard error that is enough.
        full_batch: whether Hutchinson's vectors are shared by the micro-batches.
        seed: of the probes.
    """

    estimator: Estimator
    probes: int
    tolerance: float
    full_batch: bool
    seed: int


@dataclass
class Traces:
    """Estimated traces over weights and over activations (of one sample).

    Attributes:
        values: [2, sites].
        errors: standard errors, same shape.
        reached: rows that some gradient reached.
        forward: samples run forward.
        backward: samples run backward.
    """

    values: np.ndarray
    errors: np.ndarray
    reached: set[int] = field(default_factory=set)
    forward: int = 0
    backward: int = 0


def estimate(
    task: Task,
    space: SearchSpace,
    batches: Sequence[Batch],
    rounded: Sequence[str],
    setting: Setting,
    open_sites: Open,
    advance: Advance | None = None,
) -> Traces:
    """Estimate the traces.

    Args:
        task: model and objective.
        space: the sites.
        batches: micro-batches.
        rounded: paths of the modules whose activations are looked at.
        setting: see there.
        open_sites: asked after every visit to all micro-batches.
        advance: called with what was done: probes x micro-batches, or sites.

    Raises:
        InvalidInput: the estimator does not suit the task's loss, or has too few probes.
        UnsupportedModel: the model cannot be differentiated.
        NonFiniteOutput: the model's outputs are not finite.
    """
    if setting.estimator not in ("hutch++", "xtrace"):
        return _drawn(_parts(task, space, batches, rounded, setting), setting, open_sites, advance)
    found = _by_site(task, space, batches, setting, advance)
    if rounded:
        parts = _parts(task, space, batches, rounded, setting)
        for part in parts:
            part.probes.applies[WEIGHTS] = False
        activations = _drawn(parts, setting, open_sites, advance)
        found.values += activations.values
        found.errors += activations.errors
        found.forward += activations.forward
        found.backward += activations.backward
    return found


class _Part:
    """One sum of which the traces are made, and what was drawn of it."""

    def __init__(self, probes: Probes, setting: Setting) -> None:
        self.probes = probes
        self.limit = min(setting.probes, probes.population or setting.probes)
        self.together = isinstance(probes, HutchinsonProbes) and probes.shared
        samples = sum(len(batch) for batch in probes.batches)
        self.strata = Stratified(1 if self.together else samples, probes.applies.shape)
        separate = samples if isinstance(probes, GaussNewtonProbes) and len(probes.separable) else len(probes.batches)
        self.first = min(2 if separate >= _FEW and not self.together else 4, self.limit)
        self.drawn = 0
        if probes.population is not None:
            self.strata.population[:] = probes.population

    def wanted(
        self, values: np.ndarray, others: np.ndarray, sites: np.ndarray, tolerance: float, parts: int
    ) -> tuple[np.ndarray, int]:
        """What to draw next, bool [2, sites], and how often.

        Args:
            values: the traces.
            others: errors of the other parts.
            sites: those that need further probes.
            tolerance: relative standard error of the traces that is enough.
            parts: how many there are; each may have its share of the squared error, and what others leave of theirs.
        """
        share = max(tolerance, 1e-6) ** 2
        left = np.maximum(share - np.minimum(relative_errors(values, others), 1e9) ** 2, share / parts)
        relative = np.minimum(relative_errors(values, self.strata.error), 1e9) ** 2
        active = self.probes.applies & sites & (relative > (left if tolerance else 0))
        if not active.any():
            return active, 0
        missing = np.median((self.strata.draws * (relative / left - 1))[active])
        return active, int(min(self.drawn, max(1, math.ceil(missing)), self.limit - self.drawn))

    def draw(self, visits: Visits, active: np.ndarray, count: int) -> None:
        """Draw from every micro-batch."""
        values = np.concatenate(list(visits.draw(self.drawn, count, active)), axis=1)
        if self.together:
            values = values.mean(1, keepdims=True)
        for each in values:
            self.strata.add(each, active)
        self.drawn += count


def _parts(
    task: Task, space: SearchSpace, batches: Sequence[Batch], rounded: Sequence[str], setting: Setting
) -> list[_Part]:
    """The sums that make the Hessian: its Gauss-Newton matrix and what it has beyond it, or all at once."""
    with_labels = any(labelled(task, batch) for batch in batches)
    kind = setting.estimator
    if kind == "gauss_newton" or (kind != "hutchinson" and not (with_labels and not _cross_entropy(task, batches))):
        if kind == "gauss_newton" and with_labels:
            _check(task, batches)
        parts: list[Probes] = [GaussNewtonProbes(task, space, batches, rounded, setting.seed)]
        if kind != "gauss_newton" and with_labels:
            rest = HutchinsonProbes(task, space, batches, rounded, setting.seed, "residual", setting.full_batch)
            parts += [rest] if rest.applies.any() else []
    else:
        shared = setting.full_batch
        parts = [HutchinsonProbes(task, space, batches, rounded, setting.seed, "objective", shared)]
    return [_Part(part, setting) for part in parts]


def _check(task: Task, batches: Sequence[Batch]) -> None:
    """Refuse a loss that is not the cross-entropy of the outputs."""
    batch = next(batch for batch in batches if labelled(task, batch))
    with torch.no_grad():
        output = output_tensor(run_float(task.model, batch, "calibration"))
    check_softmax(task, output, on_device(batch, task.model).targets, "gauss_newton")
    if likelihood(task, output) != "softmax":
        raise InvalidInput(f"gauss_newton takes the outputs as logits, got shape {tuple(output.shape)}; choose 'auto'")


def _cross_entropy(task: Task, batches: Sequence[Batch]) -> bool:
    try:
        _check(task, batches)
    except InvalidInput:
        return False
    return True


def _drawn(parts: list[_Part], setting: Setting, open_sites: Open, advance: Advance | None) -> Traces:
    """Draw by turns from the parts, until nothing is open or the probes are spent."""
    with ExitStack() as stack:
        visits = [Visits(part.probes, stack, keep=len(parts) == 1) for part in parts]
        for part, visit in zip(parts, visits, strict=True):
            part.draw(visit, part.probes.applies, part.first)
            _tell(advance, part, part.first)
        while True:
            values, errors = _sum(parts)
            sites = open_sites(values, errors)
            drew = False
            for part, visit in zip(parts, visits, strict=True):
                others = np.sqrt(np.clip(errors**2 - part.strata.error**2, 0, None))
                active, times = part.wanted(values, others, sites, setting.tolerance, len(parts))
                if times > 0:
                    part.draw(visit, active, times)
                    _tell(advance, part, times)
                    drew = True
            if not drew:
                break
    return Traces(
        values,
        errors,
        set().union(*(part.probes.reached for part in parts)),
        sum(part.probes.forward for part in parts),
        sum(part.probes.backward for part in parts),
    )


def _sum(parts: Sequence[_Part]) -> tuple[np.ndarray, np.ndarray]:
    values = np.sum([part.strata.mean for part in parts], axis=0)
    errors = np.sqrt(np.sum([part.strata.error**2 for part in parts], axis=0))
    return values, errors


def _tell(advance: Advance | None, part: _Part, times: int) -> None:
    if advance:
        advance(times * len(part.probes.batches))


def _by_site(
    task: Task, space: SearchSpace, batches: Sequence[Batch], setting: Setting, advance: Advance | None
) -> Traces:
    """Each site's block by itself."""
    found = Traces(np.zeros((2, len(space.sites))), np.zeros((2, len(space.sites))))
    generator = torch.Generator().manual_seed(setting.seed)
    method = _BY_PRODUCTS[setting.estimator]
    with BlockProducts(task, space, batches) as blocks:
        for row, site in enumerate(space.sites):
            weight = blocks.weight(row)
            like = torch.empty(0, dtype=torch.promote_types(weight.dtype, torch.float32), device=weight.device)
            trace = method(blocks.of(row), site.elements, setting.probes, generator, like)
            found.values[WEIGHTS, row], found.errors[WEIGHTS, row] = trace.value, trace.error
            if advance:
                advance(1)
        found.reached, found.forward, found.backward = blocks.reached, blocks.forward, blocks.backward
    return found
