"""Whole splits from parts: exact where it can be, a naive weighted regression elsewhere, and honest standard errors."""

import numpy as np
import pytest
from bitfront.errors import InvalidInput
from bitfront.measurement import Measurement
from bitfront.search.part_estimates import part_error, whole_from_part
from bitfront.search.rungs import Ladder

SPLIT, PART = 96, 24


def of(values, metric="kl"):
    return Measurement.of(metric, "validation", np.asarray(values, dtype=np.float64), 1.0)


def heavy(count, seed):
    """Losses of which a few samples hold most, as of a model that is right nearly everywhere: [candidates, samples]."""
    generator = np.random.default_rng(seed)
    hard = generator.lognormal(0.0, 2.0, SPLIT)
    level = generator.lognormal(-2.0, 1.5, (count, 1))
    return level * hard ** generator.uniform(0.8, 1.2, (count, 1)) * generator.lognormal(0.0, 0.5, (count, SPLIT))


def test_proportional_candidates_are_told_exactly_whatever_the_first_samples_are():
    shape = np.concatenate([np.full(PART, 0.1), np.full(SPLIT - PART, 1.0)])
    references = [of(level * shape) for level in (0.5, 1.0, 2.0, 4.0)]
    found, error = whole_from_part(of(0.7 * shape).beginning(PART), references)
    assert found == pytest.approx(0.7 * shape.mean(), rel=1e-9)
    assert error < 1e-6 * found


def test_it_is_the_weighted_ridge_regression_of_logarithms():
    values = heavy(13, 0)
    references, partial = [of(row) for row in values[1:]], of(values[0]).beginning(PART)
    wholes = np.array([row.mean() for row in values[1:]])
    parts = values[1:, :PART].mean(axis=1)
    offset, shift = 0.01 * np.median(wholes), 0.01 * np.median(parts)
    y, x = np.log(wholes + offset), np.log(parts + shift)
    at = np.log(values[0, :PART].mean() + shift)
    weights = np.exp(-0.5 * ((x - at) / sorted(abs(x - at))[7]) ** 2)
    x0, y0 = np.average(x, weights=weights), np.average(y, weights=weights)
    rows = np.append(np.sqrt(weights) * (x - x0), np.sqrt(0.5))  # the ridge as an observation of the slope 1
    slope = np.linalg.lstsq(rows[:, None], np.append(np.sqrt(weights) * (y - y0), np.sqrt(0.5)), rcond=None)[0][0]
    count = weights.sum() ** 2 / (weights**2).sum()
    variance = np.average((y - y0 - slope * (x - x0)) ** 2, weights=weights) * count / (count - 2)
    error = np.sqrt(variance * (1 + 1 / count + (at - x0) ** 2 / (rows @ rows)))
    told = np.exp(y0 + slope * (at - x0))
    assert whole_from_part(partial, references) == pytest.approx((told - offset, told * error))


def test_standard_errors_are_those_of_the_errors_where_those_of_the_samples_are_too_small():
    scaled, naive = [], []
    for seed in range(60):
        values = heavy(25, seed)
        partial, truth = of(values[0]).beginning(PART), values[0].mean()
        found, error = whole_from_part(partial, [of(row) for row in values[1:]])
        scaled.append(np.log(truth / found) / (error / found))
        naive.append((truth - partial.value) / ((partial.high - partial.low) / 3.92))
    assert 0.7 < np.quantile(np.abs(scaled), 0.68) < 1.4
    assert np.quantile(np.abs(scaled), 0.95) < 3
    assert np.quantile(np.abs(naive), 0.95) > 4


def test_it_is_nearer_to_the_truth_than_the_part():
    misses = []
    for seed in range(40):
        values = heavy(21, seed)
        partial, truth = of(values[0]).beginning(PART), values[0].mean()
        found, _ = whole_from_part(partial, [of(row) for row in values[1:]])
        misses.append((abs(np.log(found / truth)), abs(np.log(partial.value / truth))))
    mine, part = np.median(misses, axis=0)
    assert mine < 0.6 * part


def test_perplexity_is_estimated_as_perplexity():
    shape = np.concatenate([np.full(PART, 2.0), np.full(SPLIT - PART, 3.0)])
    references = [of(shape + shift, "perplexity") for shift in (0.0, 0.1, 0.3, 0.6)]
    candidate = of(shape + 0.2, "perplexity")
    found, error = whole_from_part(candidate.beginning(PART), references)
    assert found == pytest.approx(candidate.value, rel=0.01)
    assert 0 < error < 0.05 * found


def test_metrics_that_may_be_negative_or_zero():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(9, 1)) + 0.1 * generator.normal(size=(9, SPLIT))
    found, error = whole_from_part(of(values[0], "mine").beginning(PART), [of(row, "mine") for row in values[1:]])
    assert abs(found - values[0].mean()) < 3 * error < 0.3
    zeros = [of(np.zeros(SPLIT), "error")] * 4
    assert whole_from_part(of(np.zeros(SPLIT), "error").beginning(PART), zeros) == (0.0, 1e-6)  # not certain
    some = of(np.arange(SPLIT) % 2, "error").beginning(PART)
    found, error = whole_from_part(some, zeros)
    assert found == 0.5
    assert error == pytest.approx((some.high - some.low) / 3.919928)


def test_what_cannot_be_compared_is_refused():
    values = heavy(4, 0)
    references, partial = [of(row) for row in values[1:]], of(values[0]).beginning(PART)
    with pytest.raises(InvalidInput, match="2 references"):
        whole_from_part(partial, references[:2])
    with pytest.raises(InvalidInput, match="whole split"):
        whole_from_part(partial, [*references[:2], references[2].beginning(PART)])
    with pytest.raises(InvalidInput, match="same metric"):
        whole_from_part(partial, [*references[:2], of(values[3], "loss")])
    with pytest.raises(InvalidInput, match="nothing is to be estimated"):
        whole_from_part(of(values[0]), references)


def test_rungs_are_used_from_the_first_that_tells():
    """Losses spread evenly: a part tells the whole. A few samples hold most, others for each candidate: not."""
    generator = np.random.default_rng(0)
    even = generator.lognormal(0.0, 1.0, (16, 1)) * generator.lognormal(0.0, 0.2, (16, SPLIT))
    easy, hard = [of(row) for row in even], [of(row) for row in generator.lognormal(0.0, 2.5, (16, SPLIT))]
    ladder = Ladder((1, 2, 4), (PART, 2 * PART, SPLIT))
    assert part_error(easy, PART) < 0.06 < 0.2 < part_error(hard, PART)
    assert ladder.telling(easy) == ladder
    assert ladder.telling(hard) == Ladder((4,), (SPLIT,))
    assert ladder.telling(hard, most=100.0) == ladder
    assert ladder.telling(easy[:3]) == Ladder((4,), (SPLIT,))


def test_the_error_of_a_part_is_what_leaving_each_out_misses_by():
    values = heavy(6, 2)
    references = [of(row) for row in values]
    misses = [
        np.log(each.value / whole_from_part(each.beginning(PART), [one for one in references if one is not each])[0])
        for each in references
    ]
    assert part_error(references, PART) == pytest.approx(np.quantile(np.abs(misses), 0.6827))
    assert part_error([of(np.zeros(SPLIT))] * 5, PART) == np.inf
