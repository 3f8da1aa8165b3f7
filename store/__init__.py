"""What is known: jobs and their queue, users, files; candidates, evaluations, failures, scores, formulas, kernels."""

from .access import ROLES, Access, Identity, Role
from .artifacts import Artifacts, StoredFile
from .claims import Claims, Limits, Wish
from .database import default_url, open_engine
from .events import Events
from .lease import Lease, LeasedStore
from .models import Candidate, Evaluation, Failure, Kernel, Score, ScoredFormula
from .queue import Queue, Submission
from .queue_models import Artifact, Audit, Condition, Event, Job, Token, Upload, User, Worker
from .store import JOB_STATES, Store
from .workers import Workers

__all__ = [
    "JOB_STATES",
    "ROLES",
    "Access",
    "Artifact",
    "Artifacts",
    "Audit",
    "Candidate",
    "Claims",
    "Condition",
    "Evaluation",
    "Event",
    "Events",
    "Failure",
    "Identity",
    "Job",
    "Kernel",
    "Lease",
    "LeasedStore",
    "Limits",
    "Queue",
    "Role",
    "Score",
    "ScoredFormula",
    "Store",
    "StoredFile",
    "Submission",
    "Token",
    "Upload",
    "User",
    "Wish",
    "Worker",
    "Workers",
    "default_url",
    "open_engine",
]
