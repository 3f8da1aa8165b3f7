"""Posterior means of candidates: closed forms, and synthetic searches whose truth is known."""

import numpy as np
import pytest
from bitfront.measurement import Measurement
from bitfront.search.shrinkage import excess, excess_foretold, posterior_means
from hypothesis import given, settings
from hypothesis import strategies as st


def drawn(generator, candidates=24, sizes=(24, 24), spread=0.15, idiosyncratic=1.5, kind=0.0, error=0.1):
    """True values, predictions, and samples: hard ones are hard for all; each candidate has luck of its own."""
    true = generator.lognormal(0.0, spread, candidates)
    own = true * generator.lognormal(0.0, kind, candidates)  # on the first set, whose samples are of their own kind
    sets = []
    for number, size in enumerate(sizes):
        profile = generator.exponential(size=size)
        luck = generator.lognormal(-0.5 * idiosyncratic**2, idiosyncratic, (candidates, size))
        sets.append((own if number == 0 else true)[:, None] * profile / profile.mean() * luck)
    return true, own * generator.lognormal(0.0, error, candidates), sets


def regrets(rule, repeats=200, **options):
    """How far above the best true value a rule's choice lies, in the mean."""
    found = []
    for seed in range(repeats):
        true, told, sets = drawn(np.random.default_rng(seed), **options)
        found.append(true[int(np.argmin(rule(told, sets)))] / true.min() - 1)
    return float(np.mean(found))


def validation_alone(told, sets):
    return sets[0].mean(axis=1)


def test_it_chooses_better_than_the_validation_data_alone():
    options = {"idiosyncratic": 1.0}
    alone = regrets(validation_alone, **options)
    assert regrets(posterior_means, **options) < 0.7 * alone
    assert regrets(lambda told, sets: posterior_means(None, sets), **options) < 0.9 * alone
    assert regrets(lambda told, sets: posterior_means(told, sets[:1]), **options) < 0.9 * alone


def test_bad_predictions_do_little_harm():
    options = {"error": 2.0}
    without = regrets(lambda told, sets: posterior_means(None, sets), **options)
    assert regrets(posterior_means, **options) < 1.05 * without


def test_sets_of_another_kind_count_equally_however_many_samples_they_have():
    """The first set has ten times the samples, but they are of their own kind: pooling samples would follow it."""
    options = {"sizes": (240, 24), "kind": 0.4, "idiosyncratic": 0.3, "error": 0.05}

    def pooled(told, sets):
        return np.concatenate(sets, axis=1).mean(axis=1)

    assert regrets(posterior_means, **options) < 0.8 * regrets(pooled, **options)


def test_two_sets_alike_are_averaged_by_their_samples():
    true, _, sets = drawn(np.random.default_rng(0), sizes=(64, 64), idiosyncratic=0.1, candidates=5, kind=0.0)
    found = posterior_means(None, [sets[0], sets[0]])
    np.testing.assert_allclose(found, sets[0].mean(axis=1) / np.median(sets[0].mean(axis=1)), rtol=1e-9)
    assert np.corrcoef(found, true)[0, 1] > 0.9


def test_the_weights_are_those_of_the_closed_form():
    """Of one set and predictions: shrunk by nu^2 / (nu^2 + tau^2), with tau^2 = variance of the gap + nu^2."""
    _, told, (samples, _) = drawn(np.random.default_rng(3), candidates=8, spread=0.05, idiosyncratic=0.5)
    mean = samples.mean(axis=1)
    level = np.median(mean)
    profile = samples.mean(axis=0)
    residual = (samples - mean[:, None] / mean.mean() * profile) / level
    noise = np.mean(residual**2) / (samples.shape[1] - 1)
    one, other = told / np.median(told), mean / level
    error = noise + np.var(2 * (one - other) / (one + other), ddof=1)
    expected = (one / error + other / noise) / (1 / error + 1 / noise)
    np.testing.assert_allclose(posterior_means(told, [samples]), expected, rtol=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(1e-6, 1e6), st.integers(1, 12))
def test_the_unit_does_not_matter_and_the_order_of_candidates_neither(seed, unit, candidates):
    _, told, sets = drawn(np.random.default_rng(seed), candidates=candidates)
    found = posterior_means(told, sets)
    assert found.shape == (candidates,)
    np.testing.assert_allclose(posterior_means(unit * told, [unit * each for each in sets]), found, rtol=1e-6)
    order = np.random.default_rng(seed).permutation(candidates)
    np.testing.assert_allclose(posterior_means(told[order], [each[order] for each in sets]), found[order], rtol=1e-9)


def test_errors_that_are_all_zero_and_single_samples_are_numbers():
    assert np.isfinite(posterior_means(None, [np.zeros((4, 8))])).all()
    assert np.isfinite(posterior_means(np.zeros(5), [np.zeros((5, 1)), np.ones((5, 2))])).all()
    mixed = posterior_means(None, [np.array([[-1.0, 0.0], [0.5, 0.5], [0.0, 0.25]])])
    assert np.argmin(mixed) == 0


def test_perplexities_are_compared_on_the_scale_of_their_logarithms():
    base = Measurement.of("perplexity", "validation", np.log([4.0, 9.0]), 1.0)
    worse = Measurement.of("perplexity", "validation", np.log([8.0, 18.0]), 1.0)
    np.testing.assert_allclose(excess([worse], base), np.full((1, 2), np.log(2)))
    np.testing.assert_allclose(excess_foretold(base, [worse.value]), [np.log(2)])
    kl = Measurement.of("kl", "validation", np.array([0.0, 0.5]), 1.0)
    assert excess_foretold(kl, [1.0])[0] == pytest.approx(0.75)
