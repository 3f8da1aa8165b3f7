"""Proposers: who asks for configurations to be measured."""

from .base import BaseProposer
from .bisection import Bisection
from .diverse import Diverse
from .exact_front import ExactFront
from .gaps import Gaps
from .gaussian_process import GP
from .level_switch import LevelSwitch
from .proposer import Evaluated, Proposer
from .random_search import RandomSearch
from .registry import make, proposers
from .regularized_evolution import RegularizedEvolution
from .restricted import restricted, sites_that_matter
from .samplers import NSGA2, NSGA3, TPE
from .tables import TableProposer
from .uniform import Uniform

__all__ = [
    "GP",
    "NSGA2",
    "NSGA3",
    "TPE",
    "BaseProposer",
    "Bisection",
    "Diverse",
    "Evaluated",
    "ExactFront",
    "Gaps",
    "LevelSwitch",
    "Proposer",
    "RandomSearch",
    "RegularizedEvolution",
    "TableProposer",
    "Uniform",
    "make",
    "proposers",
    "restricted",
    "sites_that_matter",
]
