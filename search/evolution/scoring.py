"""Trying a formula: screening first, then its fitness; what is known is not computed again."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Container, Iterable, Sequence
from dataclasses import replace

from ...proxies.formulas import Compatibility, Formula, Unusable
from ...proxies.formulas import Scorer as TableScorer
from .bench_data import BenchData, FloatArray, common_inputs
from .fitness import FitnessFunction
from .record import Record
from .screening import Probe, cheapest
from .settings import EvolutionSettings

_VERSION = "formulas-2"  # of what a stored fitness means


class Scorer:
    """Tries formulas on the training configurations of some networks.

    Cheap checks come first: a corner of the smallest network, then that network, where a formula that gives no usable
    numbers, a table that no allocator can use, or the ranks of a formula that is there already, costs no more.

    Args:
        benches: the configurations that formulas are chosen on, one bench a network.
        settings: folds, penalty, probes, memory.
        known: formulas that were tried before.

    Attributes:
        settings: as given.
        inputs: what formulas may use: name -> kind.
        known: all that was tried, by digest.
        context: digest of all that a fitness depends on.
        computed: how often a formula was screened or scored and not looked up.
    """

    def __init__(self, benches: Sequence[BenchData], settings: EvolutionSettings, known: Iterable[Record] = ()) -> None:
        self.inputs = common_inputs(benches)
        self.benches = list(benches)
        self.settings = settings
        self.known = {record.digest: record for record in known}
        self.context = context_of(benches, settings)
        self.computed = 0
        self._fitness = fitness_of(benches, settings)
        self._first = cheapest(self.benches)
        self._compatible = [Compatibility(bench.statistics) for bench in benches]
        self._probe = Probe(self.benches[self._first], settings.probes)
        share = settings.memo_mb * 1_000_000 // len(self.benches)
        self._tables = [TableScorer(bench.statistics, cache_bytes=share) for bench in self.benches]

    def attempt(self, formula: Formula, taken: Container[str] = ()) -> Record:
        """The record of a formula.

        Args:
            formula: what is tried.
            taken: signatures that are there already; a formula with one of them is not scored further.

        Returns:
            With a fitness, or with the reason why there is none. It depends on nothing but the arguments.
        """
        found = self.known.get(formula.digest)
        if found is None or (found.fitness is None and found.signature and found.signature not in taken):
            started = time.perf_counter()
            found = replace(self._computed(formula, taken), seconds=time.perf_counter() - started)
            self.computed += 1
            self.known[found.digest] = found
        if found.fitness is not None and found.signature in taken:
            return replace(found, fitness=None, reason=_SAME)
        return found

    def table(self, formula: Formula, network: int) -> FloatArray:
        """Scores of a formula on one network, [sites, formats].

        Raises:
            Unusable: it gives no usable numbers there.
        """
        return self._tables[network].scores(formula)

    def _computed(self, formula: Formula, taken: Container[str]) -> Record:
        record = Record(formula.digest, str(formula), formula.size, "", None, "", 0.0)
        losses: dict[int, FloatArray] = {}
        try:
            self._tables[self._first].screen(formula)
            table = self.table(formula, self._first)
            signature = self._probe.signature(table)
            if signature is None:
                return replace(record, reason="all configurations get the same score")
            orientation, fault = self._compatible[self._first].orientation(table)
            if fault:
                return replace(record, reason=fault)
            losses[self._first] = orientation * table
            record = replace(record, signature=signature)
            if signature in taken:
                return replace(record, reason=_SAME)
            for index, compatible in enumerate(self._compatible):
                if index != self._first:
                    losses[index] = orientation * self.table(formula, index)
                    fault = compatible.fault(losses[index])
                    if fault:
                        return replace(record, signature="", reason=fault)
        except Unusable as cause:
            return replace(record, signature="", reason=cause.reason)
        found = [ranks.correlations(losses[index]) for index, ranks in enumerate(self._fitness.networks)]
        return replace(record, fitness=self._fitness(found, orientation))


_SAME = "ranks configurations as a formula that is there already"


def fitness_of(benches: Sequence[BenchData], settings: EvolutionSettings) -> FitnessFunction:
    """The fitness that the settings ask for."""
    return FitnessFunction(benches, settings.folds, settings.penalty, settings.extremes)


def context_of(benches: Sequence[BenchData], settings: EvolutionSettings) -> str:
    """Digest of all that the fitness of a formula depends on."""
    asked = (settings.folds, settings.penalty, settings.extremes, settings.probes)
    content = (_VERSION, [bench.digest for bench in benches], *asked)
    return hashlib.sha256(repr(content).encode()).hexdigest()[:32]
