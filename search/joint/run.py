"""``run_joint``: the whole chain from a task and a family of architectures to a measured front of genomes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...architecture import ArchitectureSpace, Family
from ...errors import InfeasibleBudget, InvalidInput
from ...evaluators import Recipe
from ...hw_models import cost_models
from ...proxies import get_proxy
from ...space import SearchSpace
from ...store import Store
from ...task import SPLITS, Split, Task
from ..executor import Executor, executor_called
from ..problem import check_names
from ..progress import Progress, Silent
from ..stage import Ledger, Ran
from .assessed import Asked, Predictor
from .commit import drive
from .evaluation import context_of
from .front_evolution import FrontEvolution
from .genomes import Genomes
from .joint_point import JointPoint
from .nested import Nested
from .proposer import Proposer
from .result import JointResult
from .space import JointSpace, Subnets
from .summary import summarized
from .timed_whole import WHOLE_MODELS, timed_whole, told_of_whole, worth_timing

ALWAYS_PRICED = ("size_mb", "avg_bits")
MakeProposer = Callable[..., Proposer]
"""Called as ``make(architecture, seed=seed)``."""


def run_joint(
    task: Task,
    family: Family,
    *,
    formats: Sequence[str] = ("w2", "w4", "w8", "bf16"),
    exclude: Sequence[str] = (),
    ties: str | Sequence[Sequence[str]] = "auto",
    device: str = "cpu",
    batch: int = 1,
    runtime: str | None = None,
    objectives: Sequence[str] = ("quality", "latency_ms"),
    constraints: Mapping[str, float] | None = None,
    evaluations: int = 64,
    seconds: float | None = None,
    seed: int = 0,
    executor: str | Executor = "ray",
    workers: int | None = None,
    proxy: str = "sqnr",
    proposer: MakeProposer | Proposer = FrontEvolution,
    predictor: Predictor | None = None,
    finalists: int | None = None,
    recipe: Recipe | None = None,
    store: Store | str | None = None,
    progress: Progress | None = None,
    job: Mapping[str, Any] | None = None,
    record: Mapping[str, Any] | None = None,
    out: str = "",
    ledger: Ledger | None = None,
    restrict: Callable[[SearchSpace], SearchSpace] | None = None,
    whole_models: int = WHOLE_MODELS,
) -> JointResult:
    """Search architectures and formats together: propose, solve formats exactly, merge the fronts, measure, judge.

    Args:
        task: data and metric. For a metric that needs labels its model plays no part; ``kl``, ``relative_error`` and
            ``cosine`` compare every architecture with it.
        family: builds the architectures.
        formats: offered at every site.
        exclude: globs of site names that stay in float, wherever they exist.
        ties: how sites are tied, as for ``SearchSpace.from_model``.
        device: ``"cpu"`` (kernels measured here, and conversions between them estimated) or a named device.
        batch: samples per forward pass that latency is priced for.
        runtime: whose tables price a named GPU.
        objectives: ``"quality"`` and at least one price.
        constraints: price -> largest value allowed.
        evaluations: genomes to measure, uniform ones included; a float network counts as one, the largest excepted.
        seconds: start no further round of candidates after this wall time.
        seed: of every random choice.
        executor: ``"ray"``, ``"local"``, or an executor of your own.
        workers: for Ray; default one per CPU.
        proxy: predicts the loss of formats; a cheap one, as every architecture is scored.
        proposer: of architectures: what is called with their space and a seed, or a proposer.
        predictor: foretells the quality of float networks; then architectures need no measurement of their own before
            points of their fronts are measured.
        finalists: most candidates measured on held-out data beside the baselines; default: the measured front, under
            constraints the 8 best too.
        recipe: how weights are rounded and ranges chosen.
        store: a ``Store`` or its URL; what it knows is not measured again, so a killed search goes on where it was.
        progress: who watches.
        job: the job as written, for the record.
        record: what else the store is to keep with the job.
        out: output folder, for the record.
        ledger: the stages that ran before; those of the search are added.
        restrict: takes away from a space what an export target cannot load.
        whole_models: so many genomes of the front, the best first, are exported and timed whole in the end where
            latency on the CPU is an objective or constraint; 0: none.

    Returns:
        The result: ``.front``, ``.best()``, ``.module(genome)``.

    Raises:
        InvalidInput: a name, number or input that cannot be used.
        InfeasibleBudget: constraints that no architecture that was tried meets, however coarse its formats.
        UnsupportedModel: the largest architecture fails on the data.
    """
    limits = dict(constraints or {})
    check_names(objectives, limits, list(cost_models()))
    if evaluations < 1:
        raise InvalidInput(f"evaluations={evaluations}; it must be at least 1")
    if whole_models < 0:
        raise InvalidInput(f"whole_models={whole_models}; it must be 0 or more")
    if finalists is not None and finalists < 1:
        raise InvalidInput(f"finalists={finalists}; it must be at least 1, or None for the whole measured front")
    get_proxy(proxy)
    started = time.perf_counter()
    knowledge = store if isinstance(store, Store) else Store(store)
    stages, watch = ledger or Ledger(), progress or Silent()
    groups = ties if isinstance(ties, str) else tuple(tuple(group) for group in ties)
    joint = JointSpace(family, tuple(formats), tuple(exclude), groups, restrict=restrict)
    subnets = Subnets(joint, task, recipe, knowledge, stages)
    names = tuple(dict.fromkeys(objectives))
    metrics = tuple(name for name in dict.fromkeys([*names, *limits, *ALWAYS_PRICED]) if name != "quality")
    asked = Asked(names, limits, metrics, proxy, device, batch, runtime, seed)
    contexts: dict[Split, str] = {split: context_of(subnets, split) for split in SPLITS[1:]}
    about = {"joint": {"contexts": contexts, "family": family.name, "family_digest": family.digest, "seed": seed}}
    told = {**(record or {}), **about}
    driven = executor_called(executor, workers)
    with knowledge.running_job(task.name, dict(job or {}), out) as job_id:
        knowledge.add_record(job_id, told)
        known = {
            (digest, split): found
            for split, context in contexts.items()
            for digest, found in knowledge.evaluations(context, split).items()
        }
        search = Nested(
            subnets,
            asked,
            Genomes(known, watch),
            _proposer(proposer, family.architecture, seed),
            evaluations,
            None if seconds is None else started + seconds,
            getattr(driven, "workers", 1),
            predictor,
            finalists,
        )
        drive(search, driven, knowledge, contexts, job_id)
    measuring = time.perf_counter() - started
    stages.add(Ran("measure", "genomes", "", search.genomes.ran, search.genomes.reused, measuring))
    result = summarized(search, stages, dict(job or {}), told)
    if device == "cpu" and "latency_ms" in [*names, *limits]:
        _time_whole(result, batch, whole_models, watch)
    result.seconds["total"] = time.perf_counter() - started
    return result


def _time_whole(result: JointResult, batch: int, count: int, watch: Progress) -> None:
    """Time a few genomes whole; where the model or the data does not allow it, the notes say so."""
    try:
        best: JointPoint | None = result.choose().point
    except InfeasibleBudget:
        best = None
    points = worth_timing(result.points, best, "latency_ms", count)
    result.whole_ms, failed = timed_whole(result.subnets, [each.genome for each in points], batch, watch)
    result.notes += told_of_whole(points, result.whole_ms, failed)


def _proposer(asked: MakeProposer | Proposer, architecture: ArchitectureSpace, seed: int) -> Proposer:
    if isinstance(asked, type) or not isinstance(asked, Proposer):
        made = asked(architecture, seed=seed)
        if not isinstance(made, Proposer):
            raise InvalidInput(f"proposer: {type(made).__name__} has no ask and tell (search.joint.Proposer)")
        return made
    return asked
