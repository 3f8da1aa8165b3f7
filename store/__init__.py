"""What is known: jobs, candidates, evaluations, failures, scores, formulas, measured kernels."""

from .claims import Claims, Limits, Wish
from .database import default_url, open_engine
from .lease import Lease, LeasedStore
from .models import Candidate, Evaluation, Failure, Kernel, Score, ScoredFormula
from .queue import Queue, Submission
from .queue_models import Artifact, Audit, Condition, Event, Job, Token, Upload, User, Worker
from .store import JOB_STATES, Store

__all__ = [
    "JOB_STATES",
    "Artifact",
    "Audit",
    "Candidate",
    "Claims",
    "Condition",
    "Evaluation",
    "Event",
    "Failure",
    "Job",
    "Kernel",
    "Lease",
    "LeasedStore",
    "Limits",
    "Queue",
    "Score",
    "ScoredFormula",
    "Store",
    "Submission",
    "Token",
    "Upload",
    "User",
    "Wish",
    "Worker",
    "default_url",
    "open_engine",
]
