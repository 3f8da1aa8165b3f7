"""Proposers: who asks for configurations to be measured."""

from .base import BaseProposer
from .exact_front import ExactFront
from .level_switch import LevelSwitch
from .proposer import Evaluated, Proposer
from .random_search import RandomSearch
from .registry import make, proposers
from .tables import TableProposer
from .uniform import Uniform

__all__ = [
    "BaseProposer",
    "Evaluated",
    "ExactFront",
    "LevelSwitch",
    "Proposer",
    "RandomSearch",
    "TableProposer",
    "Uniform",
    "make",
    "proposers",
]
