"""What is known: jobs, candidates, evaluations, failures, scores, formulas, measured kernels."""

from .database import default_url, open_engine
from .models import Candidate, Evaluation, Failure, Kernel, Score, ScoredFormula
from .queue_models import Job
from .store import JOB_STATES, Store

__all__ = [
    "JOB_STATES",
    "Candidate",
    "Evaluation",
    "Failure",
    "Job",
    "Kernel",
    "Score",
    "ScoredFormula",
    "Store",
    "default_url",
    "open_engine",
]
