"""Points that are estimates of a quality, with a standard error: they count for what they are worth."""

from dataclasses import replace

import numpy as np
import pytest
from bitfront.errors import InvalidInput
from bitfront.search.surrogate import Latent, Surrogate
from bitfront.search.surrogate.prior import Prior
from bitfront.search.surrogate.table import fit_table


def estimates(world, genes, relative, seed=1):
    """Qualities with a normal error of a known relative size in the logarithm."""
    found = world.evaluated(genes)
    noise = np.exp(relative * np.random.default_rng(seed).standard_normal(len(found)))
    return [
        replace(world.told(each, point.quality * factor), error=relative * point.quality * factor)
        for each, point, factor in zip(genes, found, noise, strict=True)
    ]


def miss(world, fitted):
    genes = world.genes(200, 9)
    truth = np.array([each.quality for each in world.evaluated(genes)])
    return np.median(np.abs(np.log(fitted.predict(world.groups.expand(genes)).mean / truth)))


@pytest.fixture(scope="module")
def genes(world):
    drawn = world.genes(72, 0)
    return drawn[:12], drawn[12:]


def test_good_estimates_teach_and_bad_ones_do_no_harm(world, genes):
    few, more = genes
    known = world.evaluated(few)
    alone = Surrogate(world.problem, 0.0).fit(known)
    errors = {}
    for relative in (0.05, 0.3, 2.0):
        told = Surrogate(world.problem, 0.0).fit([*known, *estimates(world, more, relative)])
        assert told.report()["estimated"] == 60
        errors[relative] = miss(world, told)
    assert errors[0.05] < 0.6 * miss(world, alone)
    assert errors[0.05] < errors[0.3] < errors[2.0]
    assert errors[2.0] < 1.3 * miss(world, alone)


def test_an_error_that_is_told_is_better_than_one_that_is_hidden(world, genes):
    few, more = genes
    known, guessed = world.evaluated(few), estimates(world, more, 0.8)
    told = Surrogate(world.problem, 0.0).fit([*known, *guessed])
    hidden = Surrogate(world.problem, 0.0).fit([*known, *(replace(each, error=0.0) for each in guessed)])
    assert miss(world, told) < miss(world, hidden)


def test_noise_of_a_point_is_its_own_and_that_of_the_model(world, genes):
    drawn = np.concatenate(genes)
    errors = np.where(np.arange(len(drawn)) % 2, 0.5, 0.0)
    latent = world.latent(drawn) + errors * np.random.default_rng(2).standard_normal(len(drawn))
    fit = fit_table(Prior.of(world.problem), drawn, latent, errors=errors)
    own = fit.gaussian.noise - errors**2
    assert (own > 0).all()
    assert (own <= 1.3 * fit.scales.noise**2).all()  # weights are at most (nu + 1) / nu
    assert fit.scales.noise < 0.2  # that of the points is not taken for the model's
    silent = fit_table(Prior.of(world.problem), drawn, latent)
    assert silent.scales.noise > fit.scales.noise


def test_estimates_test_no_intervals_and_measurements_do(world, genes):
    few, more = genes
    surrogate = Surrogate(world.problem, 0.0)
    known = world.evaluated(few)
    surrogate.fit(known)
    assert surrogate.fit([*known, *estimates(world, more[:5], 0.2)]).coverage.told == 0
    assert surrogate.fit([*known, *world.evaluated(more[:5])]).coverage.told == 5


@pytest.mark.parametrize("ceiling", [np.inf, 0.9])
def test_the_latent_error_is_the_slope_times_the_error(ceiling):
    scale, quality, error = Latent(0.2, 0.01, ceiling), np.array([0.25, 0.5, 0.8]), np.full(3, 1e-3)
    told, relative = scale.estimated(quality, error)
    assert (told == scale.forward(quality)).all()
    slope = (scale.forward(quality + 1e-6) - scale.forward(quality - 1e-6)) / 2e-6
    assert relative == pytest.approx(slope * error, rel=1e-5)
    exact, none = scale.estimated(quality, np.zeros(3))
    assert (exact == scale.forward(quality)).all()
    assert (none == 0).all()


def test_an_estimate_at_or_below_the_float_model_says_only_that_it_is_small():
    scale = Latent(0.2)
    told, relative = scale.estimated(np.array([0.1, 0.2, 0.2 + 1e-9]), np.full(3, 0.04))
    assert told == pytest.approx(np.log(0.02))
    assert relative == pytest.approx(2.0)


@pytest.mark.parametrize("error", [np.nan, np.inf, -1.0])
def test_errors_that_are_no_numbers_are_refused(world, genes, error):
    known = world.evaluated(genes[0])
    with pytest.raises(InvalidInput, match="standard error"):
        Surrogate(world.problem, 0.0).fit([*known[1:], replace(known[0], error=error)])
    with pytest.raises(InvalidInput, match="at least one"):
        Surrogate(world.problem, 0.0).fit([replace(known[0], error=0.1)])
