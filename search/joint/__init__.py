"""Architecture and formats in one search: architectures are proposed, their formats solved exactly, fronts merged."""

from .assessed import Asked, Assessed, Predictor, assess
from .correction import Correction, Seen
from .evaluation import JointEvaluator, JointRecipe, context_of
from .front_evolution import FrontEvolution
from .judged_task import Judge, resized
from .merged import Merged, gaps, merge, picked
from .nested import Nested
from .network_file import read_network, write_network
from .proposer import Proposer, Told
from .result import JointChoice, JointPoint, JointResult
from .run import run_joint
from .scale import Scale
from .space import JointSpace, Subnet, Subnets

__all__ = [
    "Asked",
    "Assessed",
    "Correction",
    "FrontEvolution",
    "JointChoice",
    "JointEvaluator",
    "JointPoint",
    "JointRecipe",
    "JointResult",
    "JointSpace",
    "Judge",
    "Merged",
    "Nested",
    "Predictor",
    "Proposer",
    "Scale",
    "Seen",
    "Subnet",
    "Subnets",
    "Told",
    "assess",
    "context_of",
    "gaps",
    "merge",
    "picked",
    "read_network",
    "resized",
    "run_joint",
    "write_network",
]
