"""Judgement on held-out configurations: standings, paired comparisons, chance, the choice of the rival."""

from dataclasses import replace

import numpy as np
import pytest
from bitfront.errors import InvalidInput
from bitfront.search.evolution import FitnessFunction, best_rival, judge
from bitfront.search.rank_statistics import kendall, partial, resamples, same_size, spearman, top_regret


def noisy(bench, amount, seed=0):
    return np.log(bench.measured) + amount * np.random.default_rng(seed).normal(size=len(bench))


def test_standings_are_those_of_the_trust_report(bench):
    made = bench(points=70)
    scores = noisy(made, 1.0)
    found = judge("f", {"f": [scores]}, [made], draws=100, seed=3).standings["f"]["net"]
    counts = resamples(70, 100, 3)
    rho = spearman(scores, made.measured, counts)
    fixed = partial(rho, spearman(scores, made.sizes, counts), spearman(made.measured, made.sizes, counts))
    tau = kendall(scores, made.measured, counts, same_size(made.sizes, 0.05))
    for estimate, values in (
        (found.spearman, rho),
        (found.spearman_fixed, fixed),
        (found.kendall_fixed, tau),
        (found.kendall, kendall(scores, made.measured, counts)),
    ):
        wanted = (values[0], *np.nanquantile(values, (0.025, 0.975)))
        np.testing.assert_allclose((estimate.value, estimate.low, estimate.high), wanted)
    assert found.regret == top_regret(scores, made.measured, 5)


def test_a_better_formula_beats_the_rival_and_an_equal_one_does_not(bench):
    benches = [bench("one", points=120), bench("other", seed=2, points=120)]
    good, bad = [noisy(each, 0.5) for each in benches], [noisy(each, 3.0, 1) for each in benches]
    found = judge("good", {"good": good, "bad": bad}, benches, draws=400)
    duel = found.comparisons["bad"]
    assert duel.beaten
    assert duel.chance == pytest.approx(1 / 401)
    means = [found.means[name].spearman_fixed.value for name in ("good", "bad")]
    assert duel.difference.value == pytest.approx(means[0] - means[1])
    by_network = [
        found.standings["good"][name].spearman_fixed.value - found.standings["bad"][name].spearman_fixed.value
        for name in ("one", "other")
    ]
    assert [each.value for each in duel.networks.values()] == pytest.approx(by_network)
    assert duel.difference.value == pytest.approx(np.mean(by_network))
    assert not judge("bad", {"good": good, "bad": bad}, benches, draws=400).comparisons["good"].beaten
    twin = judge("good", {"good": good, "twin": good}, benches, draws=400).comparisons["twin"]
    assert (twin.difference.value, twin.chance, twin.beaten) == (0.0, 1.0, False)


def test_pairing_makes_the_interval_of_the_difference_narrow(bench):
    made = bench(points=120)
    base = noisy(made, 1.0)
    close = base + 0.05 * np.random.default_rng(5).normal(size=120)
    found = judge("f", {"f": [base], "g": [close]}, [made], draws=300)
    alone = found.means["f"].spearman_fixed
    duel = found.comparisons["g"].difference
    assert duel.high - duel.low < 0.25 * (alone.high - alone.low)


def test_under_no_difference_the_interval_rarely_excludes_zero(bench):
    """Two equally noisy predictions: wrong verdicts in about 2.5 % of the cases on each side, not more than 9 of 60."""
    verdicts = []
    for seed in range(60):
        made = bench(seed=seed, points=80)
        one, other = noisy(made, 1.0, 2 * seed), noisy(made, 1.0, 2 * seed + 1)
        verdicts.append(judge("f", {"f": [one], "g": [other]}, [made], draws=100).comparisons["g"].beaten)
    assert sum(verdicts) <= 9


def test_what_knows_nothing_beyond_the_size_stands_at_zero(bench):
    made = bench(points=60)
    found = judge("flat", {"flat": [np.zeros(60)], "size": [-made.sizes]}, [made], draws=50)
    assert found.means["flat"].spearman_fixed.value == 0
    assert found.means["size"].spearman_fixed.value == 0
    assert found.means["size"].spearman.value != 0


def test_the_rival_is_chosen_by_the_same_fitness_on_training_data(bench):
    benches = [bench("one"), bench("other", seed=2)]
    fitness = FitnessFunction(benches, 2)
    assert best_rival(benches, fitness) == "mse"
    assert best_rival(benches, fitness, among=["bits"]) == "bits"
    upside = [replace(each, rivals={**each.rivals, "wrong": -each.measured}) for each in benches]
    assert best_rival(upside, fitness) == "mse"  # a hand-made proxy has its orientation
    known = [replace(upside[0], rivals={**upside[0].rivals, "truth": upside[0].measured}), upside[1]]
    assert best_rival(known, fitness) == "mse"  # truth scored one network only
    assert best_rival([replace(benches[0], rivals={})], FitnessFunction(benches[:1], 2)) is None


def test_plain_data_carries_the_verdict(bench):
    made = bench(points=60)
    found = judge("f", {"f": [made.measured], "g": [made.sizes]}, [made], draws=50)
    plain = found.to_dict()
    assert plain["comparisons"]["g"]["beaten"] is found.comparisons["g"].beaten is True
    assert plain["points"] == {"net": 60}
    with pytest.raises(InvalidInput, match="not among"):
        judge("h", {"f": [made.measured]}, [made])
