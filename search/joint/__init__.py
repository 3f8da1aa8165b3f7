"""Architecture and formats in one search: architectures are proposed, their formats solved exactly, fronts merged."""

from .accuracy_encoding import GenomeEncoding
from .accuracy_predictor import AccuracyPredictor
from .assessed import Asked, Assessed, Predictor, assess
from .decisions import ArchitectureDecisions, Decision, Decisions, GenomeDecisions
from .evaluation import JointEvaluator, JointRecipe, context_of
from .front_evolution import FrontEvolution
from .joint_point import JointChoice, JointPoint
from .judged_task import Judge, resized
from .judgement import Judgement
from .merged import Merged, gaps, merge, picked
from .model_based import ModelBased
from .nested import Nested
from .network_file import read_network, write_network
from .nsga2 import NondominatedSorting
from .operators import Operators
from .proposer import Proposer, Told
from .quality_law import QualityLaw
from .quality_seen import Seen
from .regularized_evolution import RegularizedGenomeEvolution
from .reinforce import Reinforce
from .reinforce_rewards import AbsoluteReward, FrontReward, SoftReward
from .result import JointResult
from .run import run_joint
from .sampled_proposer import SampledProposer, proposer_from
from .sampler import RandomSampler, Sampler
from .scale import Scale
from .selection import selected
from .space import JointSpace, Subnet, Subnets
from .tpe import ParzenEstimator

__all__ = [
    "AbsoluteReward",
    "AccuracyPredictor",
    "ArchitectureDecisions",
    "Asked",
    "Assessed",
    "Decision",
    "Decisions",
    "FrontEvolution",
    "FrontReward",
    "GenomeDecisions",
    "GenomeEncoding",
    "JointChoice",
    "JointEvaluator",
    "JointPoint",
    "JointRecipe",
    "JointResult",
    "JointSpace",
    "Judge",
    "Judgement",
    "Merged",
    "ModelBased",
    "Nested",
    "NondominatedSorting",
    "Operators",
    "ParzenEstimator",
    "Predictor",
    "Proposer",
    "QualityLaw",
    "RandomSampler",
    "RegularizedGenomeEvolution",
    "Reinforce",
    "SampledProposer",
    "Sampler",
    "Scale",
    "Seen",
    "SoftReward",
    "Subnet",
    "Subnets",
    "Told",
    "assess",
    "context_of",
    "gaps",
    "merge",
    "picked",
    "proposer_from",
    "read_network",
    "resized",
    "run_joint",
    "selected",
    "write_network",
]
