"""The refitted table: derivatives, posterior mean and draws against dense references; it learns a hidden truth."""

from dataclasses import replace

import numpy as np
import pytest
from bitfront.search.surrogate.additive import Additive, Features
from bitfront.search.surrogate.posterior import (
    drawn_log_table,
    entry_covariances,
    entry_variances,
    monotone_log_table,
    prior_draw,
)
from bitfront.search.surrogate.prior import Prior
from bitfront.search.surrogate.scales import Scales, increments, linear_values
from bitfront.search.surrogate.table import _Objective, fit_table, unexplained_precision

NAMES = ("intercept", "slope", "weights", "site", "format", "entry", "correlations")


@pytest.fixture(scope="module")
def prior(world):
    return Prior.of(world.problem)


@pytest.fixture(scope="module")
def fit(world, prior):
    genes = world.genes(60, 0)
    return fit_table(prior, genes, world.latent(genes))


def perturbed(prior, seed=0):
    """An estimate with pairs, away from the prior."""
    generator = np.random.default_rng(seed)
    start = Additive.at(prior).with_pairs(np.array([[0, 2], [1, 4]]))
    return replace(
        start,
        intercept=-1.0,
        slope=1.4,
        weights=start.weights * 0.8,
        site=0.2 * generator.normal(size=start.site.shape),
        format=0.2 * generator.normal(size=start.format.shape),
        entry=0.2 * generator.normal(size=start.entry.shape),
        correlations=np.array([0.3, -0.2]),
    )


def directions(model, seed=1):
    generator = np.random.default_rng(seed)
    return {name: generator.normal(size=np.shape(getattr(model, name))) for name in NAMES}


def test_prior_logs_are_centred_and_sites_of_a_tie_share_its_table(world, prior):
    assert prior.logs.mean() == pytest.approx(0, abs=1e-9)
    table = np.exp(prior.logs[0])
    by_site = prior.by_site(table)
    assert world.groups.sums(by_site) == pytest.approx(table)
    assert prior.runs == ((0, 1, 2, 3),)


def test_scores_that_are_not_positive_are_lifted(world):
    scores = next(iter(world.problem.sensitivities.values()))
    values = scores.values.copy()
    values[4] = [-1.0, 0.0, np.nan, 1e-30]
    broken = replace(world.problem, sensitivities={"p": replace(scores, values=values)})
    lifted = Prior.of(broken).logs
    assert np.isfinite(lifted).all()
    group = world.groups.of_site[4]
    assert (lifted[0, group] <= np.median(lifted[0], axis=0)).all()


def test_features_are_the_derivatives_of_the_latent_value(world, prior):
    model, genes, step = perturbed(prior), world.genes(9, 2), 1e-6
    moved = directions(model)
    up, down = (
        replace(model, **{name: getattr(model, name) + sign * step * moved[name] for name in NAMES}) for sign in (1, -1)
    )
    numeric = (up.predict(genes) - down.predict(genes)) / (2 * step)
    assert linear_values(Features.of(model, genes), moved, model.slope) == pytest.approx(numeric, rel=1e-5)


def dense_features(model, genes):
    """Derivatives by every single parameter, from finite differences: [n, parameters]; and where each stands."""
    rows = []
    for name in NAMES:
        size = np.size(getattr(model, name))
        for index in range(size):
            unit = np.zeros(size)
            unit[index] = 1.0
            zero = {each: np.zeros(np.shape(getattr(model, each))) for each in NAMES}
            zero[name] = unit.reshape(np.shape(getattr(model, name)))
            rows.append(linear_values(Features.of(model, genes), zero, model.slope))
    return np.array(rows).T


def dense_variances(model, scales):
    sizes = {"intercept": 100.0, "slope": 0.5, "weights": 0.1, "correlations": scales.pair**2}
    sizes |= {kind: getattr(scales, kind) ** 2 for kind in ("site", "format", "entry")}
    return np.concatenate([np.full(np.size(getattr(model, name)), sizes[name]) for name in NAMES])


def test_increments_are_the_dense_posterior_mean(world, prior):
    model, genes, scales = perturbed(prior), world.genes(15, 3), Scales()
    features, dense = Features.of(model, genes), dense_features(model, genes)
    alpha = np.random.default_rng(0).normal(size=15)
    expected = dense_variances(model, scales) * (dense.T @ alpha)
    found = increments(features, alpha, model.slope, scales)
    assert np.concatenate([np.ravel(found[name]) for name in NAMES]) == pytest.approx(expected)


def test_the_covariance_is_that_of_the_dense_features(world, fit):
    dense, variances = dense_features(fit.model, fit.features.genes), dense_variances(fit.model, fit.scales)
    local = fit.scales.local**2 * fit.features.similarity(fit.features)
    expected = dense @ np.diag(variances) @ dense.T + local
    assert fit.covariance(fit.features, fit.features) == pytest.approx(expected)
    other = fit.features_of(world.genes(5, 9))
    own = fit.covariance(other, other)
    cross = fit.covariance(other, fit.features)
    assert fit.variance(other) == pytest.approx(np.diag(own - cross @ fit.gaussian.inverse @ cross.T), abs=1e-6)


def test_similarity_falls_with_the_share_of_groups_that_differ(world, fit):
    genes = np.stack([fit.features.genes[0], fit.features.genes[0]])
    genes[1, :3] = (genes[1, :3] + 1) % 4
    both = fit.features_of(genes)
    expected = np.exp(-3 / genes.shape[1] / 0.25)
    assert both.similarity(both) == pytest.approx(np.array([[1, expected], [expected, 1]]))


def test_no_small_step_makes_the_posterior_density_larger(fit):
    judge = _Objective(
        fit.features.genes,
        fit.latent,
        unexplained_precision(fit.features, fit.gaussian.noise, fit.scales),
        fit.scales,
    )
    reached = judge(fit.model)
    for seed in range(20):
        moved = directions(fit.model, seed)
        for size in (0.003, 0.03):
            tried = replace(fit.model, **{name: getattr(fit.model, name) + size * moved[name] for name in NAMES})
            assert judge(tried) > reached - 0.1


def test_it_learns_the_truth_that_the_scores_miss(world, prior):
    genes, other = world.genes(60, 0), world.genes(400, 1)[200:]
    simple = fit_table(prior, genes, world.latent(genes), corrected=False)
    found = fit_table(prior, genes, world.latent(genes))
    errors = [np.abs(each.model.predict(other) - world.latent(other)).mean() for each in (simple, found)]
    assert errors[1] < 0.25 * errors[0]
    # two finest formats hardly show, the coarse ones must have been learnt
    truth = np.log(world.truth[:, :2])
    wrong = [each.model.log_table()[:, :2] - truth for each in (simple, found)]
    assert np.std(wrong[1]) < 0.5 * np.std(wrong[0])


def test_several_proxies_weigh_more_where_they_are_right(worlds):
    both = worlds(error=0.0, proxies=2)
    names = list(both.problem.sensitivities)
    noise = np.exp(1.5 * np.random.default_rng(5).normal(size=both.problem.sensitivities[names[1]].values.shape))
    noise[[1, 6]] = noise[1]
    bad = replace(both.problem.sensitivities[names[1]], values=both.problem.sensitivities[names[1]].values * noise)
    problem = replace(both.problem, sensitivities={names[0]: both.problem.sensitivities[names[0]], "bad": bad})
    genes = both.genes(80, 0)
    found = fit_table(Prior.of(problem), genes, both.latent(genes))
    assert found.model.weights[0] > 3 * abs(found.model.weights[1])


def test_one_outlier_does_not_spoil_the_rest(world, prior):
    genes, other = world.genes(50, 0), world.genes(300, 1)[200:]
    latent = world.latent(genes)
    clean = fit_table(prior, genes, latent)
    latent = latent.copy()
    latent[10] += 4.0
    spoilt = fit_table(prior, genes, latent)
    errors = [np.abs(each.model.predict(other) - world.latent(other)).mean() for each in (clean, spoilt)]
    assert errors[1] < errors[0] + 0.05


def test_draws_have_the_mean_and_the_covariance_of_the_posterior(world, prior):
    genes = world.genes(20, 0)
    fit = fit_table(prior, genes, world.latent(genes))
    generator = np.random.default_rng(0)
    draws = np.stack([drawn_log_table(fit, generator) for _ in range(3000)])
    model, scales = fit.model, fit.scales
    cross = entry_covariances(fit)
    logs = model.prior.logs
    own = 0.1 * (logs**2).sum(axis=0) + scales.site**2 + scales.format**2 + scales.entry**2
    variance = own - np.einsum("gfn,nm,gfm->gf", cross, fit.gaussian.inverse, cross)
    assert np.std(draws, axis=0) == pytest.approx(np.sqrt(variance), rel=0.08)
    assert draws.mean(axis=0) == pytest.approx(model.log_table(), abs=5 * np.sqrt(variance.max() / 3000))


def test_draws_of_a_blend_alone_move_the_weights_only(world, prior):
    genes = world.genes(12, 0)
    fit = fit_table(prior, genes, world.latent(genes), corrected=False)
    drawn = drawn_log_table(fit, np.random.default_rng(0))
    share = drawn / prior.logs[0]
    assert np.ptp(share) == pytest.approx(0, abs=1e-9)


def test_finer_formats_are_not_worse_unless_the_data_say_so(world, fit):
    log_table = fit.model.log_table()
    unsure = log_table.copy()
    unsure[3, 3] = unsure[3, 2] + 0.05
    repaired = monotone_log_table(fit, unsure)
    assert repaired[3, 3] <= repaired[3, 2] + 1e-12
    assert np.delete(repaired, 3, axis=0) == pytest.approx(np.delete(unsure, 3, axis=0))
    assert (np.diff(repaired, axis=1) <= 1e-9).all()
    sure = log_table.copy()
    sure[3, 1] = sure[3, 0] + 20.0
    assert monotone_log_table(fit, sure)[3, :2] == pytest.approx(sure[3, :2])


def test_variances_of_entries_are_those_of_draws_from_the_prior(worlds):
    both = worlds(error=0.5, proxies=2)
    genes = both.genes(15, 0)
    fit = fit_table(Prior.of(both.problem), genes, both.latent(genes))
    generator = np.random.default_rng(0)
    drawn = []
    for _ in range(4000):
        moved = prior_draw(fit, generator)
        drawn.append(np.tensordot(moved["weights"], fit.model.prior.logs, 1) + moved["site"][:, None])
        drawn[-1] = drawn[-1] + moved["format"] + moved["entry"]
    assert np.var(drawn, axis=0) == pytest.approx(entry_variances(fit), rel=0.15)


def test_the_repair_moves_what_is_less_certain(world, fit):
    """The mean of two entries that pool lies nearer to the one that the measurements told more of."""
    table = fit.model.log_table()
    rows = entry_covariances(fit)
    left = entry_variances(fit) - np.einsum("gfn,nm,gfm->gf", rows, fit.gaussian.inverse, rows)
    table[3, 3] = table[3, 2] + 0.05
    repaired = monotone_log_table(fit, table)
    moved = np.abs(repaired - table)[3, 2:]
    assert moved[0] / moved[1] == pytest.approx(left[3, 2] / left[3, 3], rel=1e-6)


def test_kept_scales_are_not_searched(world, prior):
    genes = world.genes(15, 0)
    scales = Scales(site=0.11, noise=0.2)
    assert fit_table(prior, genes, world.latent(genes), scales=scales).scales == scales
