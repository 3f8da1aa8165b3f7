"""Small problems without a model: a quality that is not quite additive, prices that are."""

import numpy as np
from bitfront.hw_models import Prices, PriceTable
from bitfront.measurement import Measurement
from bitfront.proxies import Sensitivity
from bitfront.search.problem import Problem
from bitfront.search.proposers import Evaluated
from bitfront.space import SearchSpace, Site, Tie

FORMATS = ("w2", "w3", "w4", "w8")
BITS = np.array([2.0, 3.0, 4.0, 8.0])


def table(space, metric, values, base=0.0):
    values = np.where(space.allowed, values, np.nan)
    return PriceTable(metric, "unit", values, np.zeros_like(values), base, "exact", "made up")


def small(sites=6, objectives=("quality", "avg_bits"), constraints=None, seed=0, formats=FORMATS, ties=True, bits=BITS):
    """Sites of unequal size; the last does not offer the coarsest format; the first and the third are tied."""
    generator = np.random.default_rng([seed, 77])
    rows = [
        Site(f"s{index}", "linear", (size, 1), size, formats[index == sites - 1 :], f"s{index}.weight", (f"s{index}",))
        for index, size in enumerate(generator.integers(3, 40, size=sites).tolist())
    ]
    tied = [Tie(("s0", "s2"), "test")] if ties else []
    space = SearchSpace(rows, formats, tied)
    elements = np.array([site.elements for site in rows])[:, None]
    score = generator.lognormal(0.0, 1.0, size=(sites, 1)) * 4.0 ** -(bits - bits[0])
    latency = elements * np.resize([1.4, 0.9, 1.0, 1.3], len(bits)) * generator.uniform(0.9, 1.1, (sites, len(bits)))
    prices = {
        "avg_bits": table(space, "avg_bits", elements * bits / elements.sum()),
        "latency_ms": table(space, "latency_ms", latency, base=5.0),
        "size_mb": table(space, "size_mb", elements * bits / 8e6, base=1e-3),
    }
    scores = {
        name: Sensitivity(name, np.where(space.allowed, values, np.nan), None, tuple(space.names), formats, 0.0)
        for name, values in {"good": score, "bad": score * generator.lognormal(0, 2.0, score.shape)}.items()
    }
    return Problem(space, scores, Prices(space, prices), tuple(objectives), dict(constraints or {}))


class Judge:
    """Measures configurations: the additive score of the first proxy, with an interaction of neighbours."""

    def __init__(self, problem, interaction=0.5):
        self.problem, self.interaction, self.count = problem, interaction, 0

    def quality(self, choice):
        scores = np.where(self.problem.space.allowed, next(iter(self.problem.sensitivities.values())).values, 0.0)
        each = scores[np.arange(len(choice)), choice]
        return float(each.sum() + self.interaction * np.sqrt(each[1:] * each[:-1]).sum())

    def __call__(self, proposals):
        told = []
        for proposal in proposals:
            self.count += 1
            choice = self.problem.space.choice(proposal.configuration)
            value = self.quality(choice)
            told.append(
                Evaluated(
                    proposal.configuration,
                    choice,
                    proposal.origin,
                    Measurement("kl", "validation", value, value, value, 0.0, 1, (value,)),
                    np.array([self.problem.totals(choice[None], name)[0] for name in self.problem.price_objectives]),
                    bool(self.problem.meets(choice[None])[0]),
                )
            )
        return told


def search(proposer, problem, rounds, count, interaction=0.5):
    """Alternate ask and tell; all that was measured."""
    judge, told = Judge(problem, interaction), []
    for _ in range(rounds):
        found = judge(proposer.ask(count))
        proposer.tell(found)
        told += found
    return told
