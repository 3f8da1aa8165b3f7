"""The surrogate as the loop sees it: it learns, says how sure it is, and gives the allocator better tables."""

import json

import numpy as np
import pytest
from bitfront.errors import InvalidInput
from bitfront.search.allocation import allocate
from bitfront.search.surrogate import Surrogate, choose_batch


def optimum(world, table, pairs=None, bits=3.0):
    space = world.problem.space
    found = allocate(
        table,
        {"bits": world.problem.cost("avg_bits")},
        {"bits": bits},
        ties=space.tie_indices,
        allowed=space.allowed,
        pair_loss=pairs,
    )
    return np.asarray(found.choice, dtype=np.int64)


def truly(world, choice):
    return float(np.exp(world.latent(world.groups.contract(choice)[None]))[0])


@pytest.fixture(scope="module")
def fitted(world):
    return Surrogate(world.problem, 0.0).fit(world.evaluated(world.genes(60, 0), noise=0.05))


def test_with_few_points_it_is_the_prior_and_says_so(world):
    few = world.evaluated(world.genes(3, 0))
    found = Surrogate(world.problem, 0.0).fit(few)
    assert found.kind == "prior"
    assert found.report()["few_points"]
    many = Surrogate(world.problem, 0.0).fit(world.evaluated(world.genes(60, 0), noise=0.05))
    choices = world.groups.expand(world.genes(50, 5))
    wide, narrow = found.predict(choices), many.predict(choices)
    assert np.median(wide.high / wide.low) > 3 * np.median(narrow.high / narrow.low)


def test_predictions_improve_on_the_scores_and_intervals_cover(world, fitted):
    genes = world.genes(400, 7)
    told = fitted.predict(world.groups.expand(genes))
    measured = np.array([each.quality for each in world.evaluated(genes, noise=0.05, seed=3)])
    assert fitted.kind in ("table", "pairs")
    assert np.abs(np.log(told.mean / measured)).mean() < 0.2
    inside = (told.low <= measured) & (measured <= told.high)
    assert 0.82 <= inside.mean() <= 1.0
    assert (told.low <= told.mean).all()
    assert (told.mean <= told.high).all()
    assert (told.sd > 0).all()


def test_the_refitted_table_has_a_better_optimum_than_the_scores(world, fitted):
    before = optimum(world, world.problem.loss("proxy0"))
    after = optimum(world, fitted.table, fitted.pairs or None)
    best = optimum(
        world, world.truth[world.groups.of_site] / np.bincount(world.groups.of_site)[world.groups.of_site][:, None]
    )
    told = [truly(world, choice) for choice in (best, after, before)]
    assert told[0] <= told[1] < told[2]
    assert told[1] < told[0] + 0.4 * (told[2] - told[0])


def test_tables_rank_as_the_predictions_do(world, fitted):
    choices = world.groups.expand(world.genes(100, 8))
    total = fitted.table[np.arange(choices.shape[1]), choices].sum(axis=1)
    for (one, other), values in fitted.pairs.items():
        total = total + values[choices[:, one], choices[:, other]]
    latent = fitted._fit.model.with_table(fitted._log_table).predict(world.groups.contract(choices))
    assert np.argsort(total).tolist() == np.argsort(latent).tolist()
    assert (fitted.table[world.problem.space.allowed] > 0).all()
    assert (np.diff(world.groups.sums(fitted.table), axis=1) <= 1e-9).all()


def test_samples_are_tables_that_differ_and_solve(world, fitted):
    generator = np.random.default_rng(0)
    tables = [fitted.sample(generator) for _ in range(12)]
    solved = {tuple(optimum(world, table)) for table in tables}
    assert len(solved) > 1
    assert all((table > 0).all() and (np.diff(world.groups.sums(table), axis=1) <= 1e-9).all() for table in tables)
    again = fitted.sample(np.random.default_rng(0))
    assert (again == tables[0]).all()


def test_samples_of_more_points_agree_more(world):
    def spread(count):
        found = Surrogate(world.problem, 0.0).fit(world.evaluated(world.genes(count, 0), noise=0.02))
        generator = np.random.default_rng(1)
        logs = np.log([found.sample(generator)[:, 0] for _ in range(40)])
        return np.std(logs - logs.mean(axis=1, keepdims=True), axis=0).mean()  # only ratios matter

    assert spread(80) < 0.6 * spread(12)


def test_the_same_measurements_give_the_same_fit(world):
    points = world.evaluated(world.genes(25, 0), noise=0.1)
    choices = world.groups.expand(world.genes(5, 5))
    one, other = (Surrogate(world.problem, 0.0).fit(points).predict(choices) for _ in range(2))
    assert (one.mean == other.mean).all()
    assert (one.high == other.high).all()


def test_earlier_predictions_are_tested_by_later_measurements(world):
    points = world.evaluated(world.genes(60, 0), noise=0.05)
    surrogate = Surrogate(world.problem, 0.0)
    surrogate.fit(points[:30])
    assert surrogate.coverage.told == 0
    found = surrogate.fit(points[:45])
    assert found.coverage.told == 15
    assert surrogate.fit(points[:45]).coverage.told == 15
    assert surrogate.fit(points).coverage.share > 0.7


def test_the_report_is_plain_data(world, fitted):
    told = json.loads(json.dumps(fitted.report(), allow_nan=False))
    assert told["kind"] == fitted.kind
    assert told["points"] == 60
    assert set(told["weights"]) == {"proxy0"}
    assert told["left_out_spearman"] > 0.9
    assert 0.8 < told["left_out_r2"] <= 1
    assert told["coverage"]["asked"] == 0.9
    assert set(told["left_out_density"]) >= {"map", "table"}


@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_any_number_of_points_can_be_fitted(world, count):
    found = Surrogate(world.problem, 0.0).fit(world.evaluated(world.genes(count, 0)))
    told = found.predict(world.groups.expand(world.genes(4, 2)))
    assert np.isfinite([told.mean, told.low, told.high, told.sd]).all()
    json.dumps(found.report(), allow_nan=False)


def test_qualities_at_and_below_that_of_the_float_model(world):
    """An error rate in steps of 1 %, with the float model at 20 %."""
    genes = world.genes(40, 0)
    share = np.clip(np.exp(world.latent(genes)), 0, 0.7)
    values = 0.2 + np.round(share, 2) - 0.01
    points = [world.told(each, value) for each, value in zip(genes, values, strict=True)]
    found = Surrogate(world.problem, 0.2).fit(points)
    told = found.predict(np.stack([each.choice for each in points]))
    assert np.isfinite([told.mean, told.low, told.high, told.sd]).all()
    assert np.corrcoef(told.mean, values)[0, 1] > 0.9


def test_equal_qualities_are_no_error(world):
    points = [world.told(each, 0.5) for each in world.genes(20, 0)]
    told = Surrogate(world.problem, 0.1).fit(points).predict(np.stack([each.choice for each in points]))
    assert told.mean == pytest.approx(np.full(20, 0.5), rel=0.05)


def test_several_proxies_and_saturation(worlds):
    both = worlds(error=0.5, proxies=2)
    genes, other = both.genes(60, 0), both.genes(400, 4)[200:]

    def saturated(rows):
        grown = np.exp(both.latent(rows))
        return grown / (1 + grown / 0.5)

    points = [both.told(each, value) for each, value in zip(genes, saturated(genes), strict=True)]
    found = Surrogate(both.problem, 0.0).fit(points)
    assert np.isfinite(found.latent.ceiling)
    told = found.predict(both.groups.expand(other))
    assert np.abs(np.log(told.mean / saturated(other))).mean() < 0.15


def test_moments_agree_with_predictions_and_feed_the_choice_of_a_batch(world, fitted):
    choices = world.groups.expand(world.genes(40, 6))
    mean, covariance = fitted.latent_moments(choices)
    assert fitted.latent.inverse(mean) == pytest.approx(fitted.predict(choices).mean)
    assert np.linalg.eigvalsh(covariance).min() > -1e-8
    points = world.evaluated(world.genes(60, 0))
    chosen = choose_batch(
        fitted,
        choices,
        world.problem.totals(choices, "avg_bits")[:, None],
        np.array([each.quality for each in points]),
        np.stack([each.costs for each in points]),
        5,
    )
    assert len(set(chosen.tolist())) == 5


def test_nothing_measured_or_no_float_quality_is_refused(world):
    with pytest.raises(InvalidInput, match="at least one"):
        Surrogate(world.problem, 0.0).fit([])
    with pytest.raises(InvalidInput, match="float model"):
        Surrogate(world.problem, float("nan"))
