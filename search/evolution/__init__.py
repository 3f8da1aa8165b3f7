"""Evolution of proxies as formulas, and honest validation of what it finds."""

from .archive import Archive
from .bench_data import BenchData
from .evolve import Evolution, evolve
from .fitness import Fitness, FitnessFunction, FixedSizeRanks
from .held_out import HeldOut, evolve_held_out, leave_one_out
from .record import Record
from .settings import EvolutionSettings
from .validation import Comparison, Judgement, Standing, best_rival, judge

__all__ = [
    "Archive",
    "BenchData",
    "Comparison",
    "Evolution",
    "EvolutionSettings",
    "Fitness",
    "FitnessFunction",
    "FixedSizeRanks",
    "HeldOut",
    "Judgement",
    "Record",
    "Standing",
    "best_rival",
    "evolve",
    "evolve_held_out",
    "judge",
    "leave_one_out",
]
