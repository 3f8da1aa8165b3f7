"""``run``: the whole chain from a task to a measured front."""

from __future__ import annotations

import difflib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from inspect import signature
from typing import Any, Literal

from ..errors import ExportMismatch, InvalidInput, UnsupportedModel
from ..evaluators import Calibration, Recipe, evaluation_context, prepared
from ..hw_models import cost_models
from ..hw_models.network import Network
from ..proxies import Sensitivity
from ..space import SearchSpace
from ..store import Store
from ..task import SPLITS, Split, Task
from .beginnings import beginnings
from .executor import EvaluatorRecipe, Executor, Outcome, executor_called
from .knowledge import Knowledge, remember
from .loop import PROPOSERS, Loop
from .measurements import Halving, Measurements
from .overlap import seen_before
from .problem import Problem, check_names
from .progress import Progress, Silent
from .proposers import proposers as proposers_by_name
from .proxy_choice import AUTO
from .recipe_search import RecipeArgument, asked_recipes, plain, search_recipe, short
from .result import Result
from .rounds_record import RoundsRecord
from .run_record import run_record
from .stage import Ledger, key_of
from .stages import calibrated, priced, scores_of
from .stopping import StopRule
from .stored_outcomes import keep
from .stored_problem import StoredProblem
from .summary import summarize
from .whole_model import EXPORTS, measured_whole

ALWAYS_PRICED = ("size_mb", "avg_bits")


def run(
    task: Task,
    space: SearchSpace,
    *,
    device: str = "cpu",
    batch: int = 1,
    runtime: str | None = None,
    whole_models: int = EXPORTS,
    objectives: Sequence[str] = ("quality", "latency_ms"),
    constraints: Mapping[str, float] | None = None,
    evaluations: int = 32,
    seconds: float | None = None,
    seed: int = 0,
    executor: str | Executor = "ray",
    workers: int | None = None,
    proxies: Sequence[str] | Literal["auto"] = ("hessian_trace", "sqnr"),
    proposers: Sequence[str] | Literal["auto"] = "auto",
    stop: Mapping[str, Any] | None = None,
    fidelity: Mapping[str, int] | None = None,
    finalists: int | None = None,
    recipe: RecipeArgument = None,
    store: Store | str | None = None,
    progress: Progress | None = None,
    job: Mapping[str, Any] | None = None,
    record: Mapping[str, Any] | None = None,
    out: str = "",
    key: str | None = None,
    ledger: Ledger | None = None,
) -> Result:
    """Search: score, price, allocate exactly, really evaluate, validate on held-out data.

    Args:
        task: model, data, metric.
        space: sites, formats, ties.
        device: ``"cpu"`` (measured here) or a named device.
        batch: samples per forward pass that latency is priced for.
        runtime: whose tables price a named GPU, as in ``price``.
        whole_models: exports that are timed whole for latency on this CPU, so that it counts the operators outside the
            sites and the conversions between unlike neighbours; 0: the sum of the kernels alone.
        objectives: ``"quality"`` and at least one price.
        constraints: price -> largest value allowed.
        evaluations: configurations to measure on the validation data, uniform ones included.
        seconds: stop measuring further candidates after this wall time.
        seed: of every random choice.
        executor: ``"ray"``, ``"local"``, or an executor of your own; all give the same front for the same seed.
        workers: for Ray; default one per CPU.
        proxies: which predict the loss. The first evaluations are shared between their fronts, later ones go to the
            proxy that has ranked what was measured best; the first is the one that reports show. ``"auto"``: a cheap
            set, from which the first measurements choose one or weight them (``result.proxy_choice``).
        proposers: who proposes what is measured; several are mixed by a bandit. ``"auto"``: ``loop.PROPOSERS``.
        stop: what ends the search early: the fields of ``StopRule``.
        fidelity: ``{"samples": 32, "factor": 4}``: candidates are measured on so many validation samples first, one of
            ``factor`` goes on to ``factor`` times as many, until the whole data; so more candidates are seen for the
            same time. ``evaluations`` then counts evaluations of the whole data, or what costs as much.
        finalists: most candidates measured on held-out data beside the rivals (uniform configurations and, under
            constraints, the exact allocation on every proxy's scores); default: the measured front, and under
            constraints the 8 best.
        recipe: how weights are rounded and ranges chosen, the same for every candidate. Of several, or of ``"auto"``
            (see ``recipe_search``), one is chosen before the loop by real evaluations and successive halving; then
            the task is prepared here (equalization), for a single recipe that is up to the caller.
        store: a ``Store`` or its URL; default ``$BITFRONT_STORE`` or ``.bitfront/store.db``. What it knows is not
            measured again, so a killed search goes on where it was.
        progress: who watches.
        job: the job as written, for the record.
        record: what else the store is to keep with the job, such as versions and hardware.
        out: output folder, for the record.
        key: under which the store keeps what ``resolve`` answers new budgets from; default: a digest of the task, the
            space, the device and the recipe (``result.key``).
        ledger: the stages that ran before this search, such as the trace; those of the search are added.

    Returns:
        The result: ``.front``, ``.best()``, ``.report``.

    Raises:
        InvalidInput: a name, number or input that cannot be used.
        InfeasibleBudget: constraints that no configuration meets; the message names the smallest that can be.
        NonFiniteOutput: the float model gives NaN or infinity.
    """
    limits = dict(constraints or {})
    check_names(objectives, limits, list(cost_models()))
    if evaluations < 1:
        raise InvalidInput(f"evaluations={evaluations}; it must be at least 1")
    if not proxies or (isinstance(proxies, str) and proxies != "auto"):
        raise InvalidInput(f"proxies={proxies!r}; give a list of names, such as ['hessian_trace'], or 'auto'")
    if finalists is not None and finalists < 1:
        raise InvalidInput(f"finalists={finalists}; it must be at least 1, or None for the whole measured front")
    check_keys("stop", stop or {}, [each.name for each in fields(StopRule)])
    check_keys("fidelity", fidelity or {}, list(signature(Halving.of).parameters)[1:])
    rule = StopRule(**(stop or {}))
    check_targets(rule.target, list(cost_models()))
    named = PROPOSERS if isinstance(proposers, str) else tuple(dict.fromkeys(proposers))
    check_proposers(named)
    started = time.perf_counter()
    recipes = asked_recipes(recipe, task, space)
    search = _Search(
        task=task,
        space=space,
        store=store if isinstance(store, Store) else Store(store),
        progress=progress or Silent(),
        executor=executor_called(executor, workers),
        device=device,
        batch=batch,
        runtime=runtime,
        whole_models=whole_models,
        objectives=tuple(dict.fromkeys(objectives)),
        constraints=limits,
        evaluations=evaluations,
        deadline=None if seconds is None else started + seconds,
        seed=seed,
        proxies=AUTO if proxies == "auto" else tuple(proxies),
        auto=proxies == "auto",
        proposers=named,
        stop=rule,
        halving=Halving.of(task, **fidelity) if fidelity is not None else None,
        finalists=finalists,
        recipe=recipes[0],
        recipes=recipes,
        job=dict(job or {}),
        record=dict(record or {}),
        key=key
        or key_of(
            "task",
            task.digest(*SPLITS),
            space.digest,
            f"{device}/{runtime}" if runtime else device,
            batch,
            "; ".join(map(str, recipes)),
            seed,
        ),
        ledger=ledger or Ledger(),
    )
    with search.store.running_job(task.name, search.job, out) as job_id:
        result = search.go(job_id)
    result.key = search.key
    result.record = search.record
    result.seconds["total"] = time.perf_counter() - started
    return result


@dataclass
class _Search:
    """One search: what was asked, and the stages that answer it."""

    task: Task
    space: SearchSpace
    store: Store
    progress: Progress
    executor: Executor
    device: str
    batch: int
    runtime: str | None
    whole_models: int
    objectives: tuple[str, ...]
    constraints: dict[str, float]
    evaluations: int
    deadline: float | None
    seed: int
    proxies: tuple[str, ...]
    auto: bool
    proposers: tuple[str, ...]
    stop: StopRule
    halving: Halving | None
    finalists: int | None
    recipe: Recipe
    recipes: tuple[Recipe, ...]
    job: dict[str, Any]
    record: dict[str, Any]
    key: str
    ledger: Ledger
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def go(self, job_id: str) -> Result:
        """Choose the recipe, calibrate, price, score, allocate, evaluate."""
        chosen = self._chosen_recipe()
        with self._timed("calibrate"):
            calibration = calibrated(self.task, self.space, self.recipe, self.store, self.progress, ledger=self.ledger)
        problem = self._problem(calibration)
        contexts: dict[Split, str] = {
            split: evaluation_context(self.task, calibration, split, reestimate_batch_norm=self.recipe.batch_norm)
            for split in SPLITS[1:]
        }
        self._remember(problem, contexts, job_id)
        seen, held = seen_before(self.task)
        if seen:
            self.notes.append(
                f"{seen} of {held} held-out samples are also in the calibration or validation data, so the held-out "
                "figures are not those of unseen data; give other samples"
            )
        measurements = self._known(problem, calibration, contexts)
        loop = Loop(
            problem,
            measurements,
            self.evaluations,
            self.deadline,
            getattr(self.executor, "workers", 1),
            self.auto,
            self.proposers,
            self.stop,
            self.finalists,
            self.seed,
        )
        record = RoundsRecord(loop, self.store, job_id)

        def commit(outcome: Outcome) -> None:
            keep(self.store, contexts[outcome.work.split], outcome)
            record.count(outcome)
            measurements.arrived(outcome)

        with self._timed("evaluate"):
            recipe = EvaluatorRecipe(self.task, self.space, calibration, self.recipe.batch_norm)
            self.executor.drive(record.rounds(), recipe, commit)
        record.enter(self.ledger)
        return summarize(
            loop.problem,
            measurements.proposals,
            measurements.known,
            failures=measurements.failures,
            seconds=self.seconds,
            job=self.job,
            model=self.task.name,
            metric=self.task.metric,
            notes=self.notes,
            choice=loop.choice,
            ledger=self.ledger,
            search=loop.report(),
            recipe=chosen,
        )

    def _chosen_recipe(self) -> dict[str, Any]:
        """Which of several recipes is used from here on, and how it was found out."""
        if len(self.recipes) == 1:
            return {"chosen": asdict(self.recipe), "name": short(self.recipe), "tried": []}
        with self._timed("choose the recipe"):
            found = search_recipe(
                self.task, self.space, self.recipes, self.constraints, self.store, self.progress, self.seed
            )
            self.recipe = found.recipe
            self.task = prepared(self.task, self.space, self.recipe)
        return plain(found)

    def _known(self, problem: Problem, calibration: Calibration, contexts: dict[Split, str]) -> Measurements:
        """What the store knows of the candidates: whole splits, and the first samples of the validation data."""
        again = self.recipe.batch_norm
        found = beginnings(self.store, self.task, calibration, "validation", reestimate_batch_norm=again)
        known = {
            (digest, split): measurement
            for split, context in contexts.items()
            for digest, measurement in self.store.evaluations(context, split).items()
        }
        partial = {digest: each for digest, each in found.items() if (digest, "validation") not in known}
        if self.halving is not None and len(self.halving.ladder.batches) < 2:
            self.notes.append(
                f"fidelity: {self.halving.ladder.samples[0]} validation samples in one rung, none is saved"
            )
        doomed = self.store.failures(contexts["validation"], "validation")
        return Measurements(problem, known, self.progress, partial, self.halving, doomed)

    def _remember(self, problem: Problem, contexts: dict[Split, str], job_id: str) -> None:
        """Keep what a new budget is answered from without the model, and with the job what it measures."""
        found = Knowledge(
            self.task.name,
            self.task.metric,
            self.space,
            problem.prices,
            dict(problem.sensitivities),
            self.objectives,
            self.constraints,
            contexts,
            asdict(self.recipe),
        )
        kept = remember(self.store, self.key, found)
        self.record["search"] = run_record(self.task, found, self.key, kept, self.seed, self.evaluations)
        self.store.add_record(job_id, self.record)

    def _whole(self, calibration: Calibration) -> Network | None:
        """A few exports timed whole; where the model or the data does not allow it, the notes say so."""
        if not self.whole_models:
            return None
        try:
            return measured_whole(
                self.task,
                self.space,
                calibration,
                self.batch,
                self.store,
                self.progress,
                exports=self.whole_models,
                seed=self.seed,
                ledger=self.ledger,
            )
        except (InvalidInput, ExportMismatch) as cause:
            self.notes.append(f"latency_ms is the sum of the sites' kernels only; no whole model was timed: {cause}")
            return None

    def _problem(self, calibration: Calibration) -> Problem:
        """Prices and scores; an impossible budget is refused here, before any evaluation."""
        asked = dict.fromkeys([*self.objectives, *self.constraints, *self.stop.target, *ALWAYS_PRICED])
        metrics = [name for name in asked if name != "quality"]
        with self._timed("price"):
            network = self._whole(calibration) if "latency_ms" in metrics and self.device == "cpu" else None
            prices = priced(
                self.space,
                self.device,
                self.batch,
                metrics,
                self.store,
                self.progress,
                ledger=self.ledger,
                runtime=self.runtime,
                network=network,
            )
        sensitivities: dict[str, Sensitivity] = {}
        for name in self.proxies:
            with self._timed(f"score {name}"):
                found, left_out = scores_of(
                    self.task,
                    self.space,
                    calibration,
                    [name],
                    self.seed,
                    self.store,
                    self.progress,
                    self.auto,
                    ledger=self.ledger,
                )
            sensitivities |= found
            self.notes += [f"proxy {each} is left out: {reason}" for each, reason in left_out.items()]
        if not sensitivities:
            raise UnsupportedModel(f"no proxy can score this model: {self.notes[0]}")
        problem = StoredProblem(
            self.space,
            sensitivities,
            prices,
            self.objectives,
            self.constraints,
            store=self.store,
            ledger=self.ledger,
            kept=frozenset(sensitivities),
        )
        if self.constraints:
            with self._timed("allocate"):
                problem.solve(next(iter(sensitivities)), self.constraints)
        return problem

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started


def check_proposers(names: Sequence[str]) -> None:
    """Refuse unknown proposers.

    Raises:
        InvalidInput: there are none, or one is unknown; the message names the nearest.
    """
    known = proposers_by_name()
    if not names:
        raise InvalidInput("proposers is empty; give names, such as ['exact_front', 'level_switch'], or 'auto'")
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise InvalidInput(f"unknown proposer {name!r}; did you mean {near!r}? Known: {', '.join(sorted(known))}")


def check_keys(argument: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuse unknown keys of an argument that is a mapping.

    Raises:
        InvalidInput: the message names the nearest.
    """
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise InvalidInput(f"{argument}: unknown key {name!r}; did you mean {near!r}? Known: {', '.join(known)}")


def check_targets(target: Mapping[str, float], known: Sequence[str]) -> None:
    """Refuse targets that are neither the quality nor a price.

    Raises:
        InvalidInput: the message names the nearest valid one.
    """
    for name in target:
        if name != "quality" and name not in known:
            near = difflib.get_close_matches(name, [*known, "quality"], n=1, cutoff=0.0)[0]
            raise InvalidInput(f"stop: unknown target {name!r}; did you mean {near!r}?")
