"""Measuring one configuration of a job, with the same evaluator, calibration and store as its search."""

from __future__ import annotations

from pathlib import Path

from ..errors import NonFiniteOutput
from ..evaluators import evaluation_context
from ..search import Progress, Silent, calibrated
from ..search.executor import EvaluatorRecipe, Work, attempt
from ..search.knowledge import recall
from ..space import Configuration
from ..store import Store
from ..task import SPLITS
from .job import Job
from .job_key import job_key
from .run_job import load, with_recipe


def measure_configuration(
    job: Job, folder: Path, configuration: Configuration, store: Store, progress: Progress | None = None
) -> None:
    """Measure a configuration on validation and held-out data and store it; what is stored is not measured again.

    Args:
        job: model, data, space and quantization.
        folder: where the job's relative paths start.
        configuration: what.
        store: of the job.
        progress: who watches.

    Raises:
        NonFiniteOutput: the quantized model gives NaN or infinity.
    """
    watch = progress or Silent()
    made = load(job, folder, watch, store)
    known = recall(store, job_key(job, folder, store))
    made, recipe = with_recipe(job, made, known.recipe if known else {})
    calibration = calibrated(made.task, made.space, recipe, store, watch)
    evaluator = EvaluatorRecipe(made.task, made.space, calibration, recipe.batch_norm).build()
    with watch.stage("measure the optimum", len(SPLITS) - 1) as advance:
        for split in SPLITS[1:]:
            context = evaluation_context(made.task, calibration, split, reestimate_batch_norm=recipe.batch_norm)
            if configuration.digest not in store.evaluations(context, split):
                (outcome,) = attempt(evaluator, [Work(configuration, split)])
                if outcome.measurement is None:
                    raise NonFiniteOutput(outcome.failure)
                store.save_evaluation(context, configuration, outcome.measurement)
            advance(1)
