"""Rank correlations against scipy and closed forms, and the trust report on predictions of known quality."""

import itertools
import json

import numpy as np
import pytest
from bitfront.errors import InvalidInput
from bitfront.search.rank_statistics import (
    Estimate,
    expected_minimum,
    kendall,
    partial,
    resamples,
    same_size,
    size_strata,
    spearman,
    top_regret,
)
from bitfront.search.trust import TOP, calibrated_monotone, calibrated_power, trust_report
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats


def once(values):
    return np.ones((1, len(values)))


pairs_of_lists = st.integers(4, 25).flatmap(
    lambda count: st.tuples(*[st.lists(st.integers(0, 6), min_size=count, max_size=count)] * 2)
)


@given(pairs_of_lists)
@settings(max_examples=80, deadline=None)
def test_correlations_are_those_of_scipy_with_ties(lists):
    x, y = (np.array(values, dtype=float) for values in lists)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert np.isnan(kendall(x, y, once(x)))
        assert np.isnan(spearman(x, y, once(x)))
        return
    assert kendall(x, y, once(x))[0] == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)
    assert spearman(x, y, once(x))[0] == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


def test_a_resample_by_counts_is_the_resample_of_the_data():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=30), generator.normal(size=30).round(1)
    counts = resamples(30, 20, seed=3)
    taus, rhos = kendall(x, y, counts), spearman(x, y, counts)
    for row, tau, rho in zip(counts, taus, rhos, strict=True):
        index = np.repeat(np.arange(30), row.astype(int))
        assert tau == pytest.approx(stats.kendalltau(x[index], y[index]).statistic, abs=1e-12)
        assert rho == pytest.approx(stats.spearmanr(x[index], y[index]).statistic, abs=1e-12)


def test_the_first_resample_is_the_data_and_seeds_decide_the_rest():
    counts = resamples(12, 50, seed=1)
    assert counts.shape == (51, 12)
    assert (counts[0] == 1).all()
    assert (counts.sum(axis=1) == 12).all()
    assert np.array_equal(counts, resamples(12, 50, seed=1))
    assert not np.array_equal(counts, resamples(12, 50, seed=2))


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    """Bivariate normal with correlation r: the population tau is 2/pi asin(r)."""
    generator = np.random.default_rng(0)
    truth, hits = 2 / np.pi * np.arcsin(0.6), 0
    for repeat in range(120):
        x, noise = generator.normal(size=(2, 60))
        found = Estimate.of(kendall(x, 0.6 * x + 0.8 * noise, resamples(60, 300, repeat)))
        hits += found.low <= truth <= found.high
    assert 105 <= hits <= 120  # of 114 expected; binomial standard deviation 2.4, percentile intervals run a bit short


def test_partial_correlation_is_that_of_the_residuals_of_the_ranks():
    generator = np.random.default_rng(5)
    z = generator.normal(size=80)
    x, y = z + generator.normal(size=80), z + generator.normal(size=80)
    ones = once(x)
    found = partial(spearman(x, y, ones), spearman(x, z, ones), spearman(y, z, ones))[0]
    rank = {name: stats.rankdata(values) for name, values in (("x", x), ("y", y), ("z", z))}
    design = np.column_stack([rank["z"], np.ones(80)])
    left = [rank[name] - design @ np.linalg.lstsq(design, rank[name])[0] for name in "xy"]
    assert found == pytest.approx(np.corrcoef(*left)[0, 1], abs=1e-12)


def test_partial_correlation_given_the_variable_itself_is_undefined():
    z = np.arange(20.0)
    y = np.random.default_rng(0).normal(size=20)
    ones = once(z)
    assert np.isnan(partial(spearman(z, y, ones), spearman(z, z, ones), spearman(y, z, ones))[0])


def test_kendall_at_fixed_size_counts_only_pairs_of_the_same_size():
    generator = np.random.default_rng(2)
    x, y = generator.normal(size=(2, 25))
    sizes = generator.uniform(1, 2, size=25)
    close = same_size(sizes, 0.1)
    signs = []
    for i, j in itertools.combinations(range(25), 2):
        expected = abs(sizes[i] - sizes[j]) <= 0.1 * max(sizes[i], sizes[j])
        assert close[i, j] == close[j, i] == expected
        if expected:
            signs.append(np.sign(x[i] - x[j]) * np.sign(y[i] - y[j]))
    assert not close.diagonal().any()
    assert kendall(x, y, once(x), close)[0] == pytest.approx(np.mean(signs), abs=1e-12)


def test_two_sizes_that_fool_the_overall_correlation_do_not_fool_the_one_at_fixed_size():
    """Simpson: within a size the order is reversed, between the sizes it is right."""
    sizes = np.repeat([1.0, 2.0], 10)
    measured = np.concatenate([10 + np.arange(10.0), np.arange(10.0)])
    predicted = np.concatenate([100 - np.arange(10.0), -np.arange(10.0)])
    assert kendall(predicted, measured, once(sizes))[0] > 0
    assert kendall(predicted, measured, once(sizes), same_size(sizes, 0.05))[0] == -1


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=7), st.data())
@settings(max_examples=60, deadline=None)
def test_expected_minimum_is_the_mean_over_all_subsets(values, data):
    picks = data.draw(st.integers(1, len(values)))
    wanted = np.mean([min(subset) for subset in itertools.combinations(values, picks)])
    assert expected_minimum(np.array(values), picks) == pytest.approx(wanted, abs=1e-9)


def test_expected_minimum_refuses_more_picks_than_values():
    with pytest.raises(InvalidInput, match="4 picks from 3 values"):
        expected_minimum(np.zeros(3), 4)


def test_regret_is_zero_for_the_truth_and_one_for_no_information():
    measured = np.random.default_rng(0).normal(size=30)
    assert top_regret(measured, measured, 3) == 0
    assert top_regret(np.zeros(30), measured, 3) == pytest.approx(1)
    assert top_regret(-measured, measured, 3) > 1
    assert top_regret(measured, np.ones(30), 3) is None
    assert top_regret(measured[:3], measured[:3], 3) is None


def test_regret_averages_over_tied_predictions():
    measured = np.array([3.0, 1.0, 2.0, 0.0, 5.0])
    predicted = np.array([0.0, 1.0, 1.0, 2.0, 3.0])
    found = np.mean([min(3.0, 1.0), min(3.0, 2.0)])  # the first surely, one of the two tied
    assert top_regret(predicted, measured, 2) == pytest.approx(found / expected_minimum(measured, 2))


def test_strata_hold_every_point_once_by_rising_size():
    sizes = np.random.default_rng(0).uniform(size=83)
    strata = size_strata(sizes, 8, 6)
    assert len(strata) == 6
    assert sorted(np.concatenate(strata)) == list(range(83))
    for low, high in itertools.pairwise(strata):
        assert sizes[low].max() <= sizes[high].min()
    assert len(size_strata(sizes[:15], 8, 6)) == 1


def test_calibration_of_an_exact_power_law_is_exact_and_of_noise_is_the_noise():
    generator = np.random.default_rng(0)
    scores = generator.lognormal(size=400)
    exact = calibrated_power(scores, 0.3 + 2 * scores**0.7, offset=0.3)
    assert exact.factor == pytest.approx(1, abs=1e-9)
    assert exact.points == 400
    noisy = calibrated_power(scores, 0.3 + 2 * scores**0.7 * np.exp(0.2 * generator.normal(size=400)), offset=0.3)
    assert noisy.spread == pytest.approx(0.2, rel=0.1)
    assert noisy.factor == pytest.approx(np.exp(0.6745 * 0.2), rel=0.05)  # median of |N(0, 0.2)|


def test_monotone_calibration_takes_any_monotone_map_and_any_sign():
    scores = np.linspace(-3, 3, 60)
    found = calibrated_monotone(scores, np.exp(np.tanh(scores)))
    assert found.factor < 1.1
    assert calibrated_monotone(-scores, np.exp(np.tanh(scores))).factor > 1.5
    assert calibrated_monotone(scores[:4], np.exp(scores[:4])) is None
    assert calibrated_power(scores - 10, np.exp(scores)) is None


@pytest.fixture(scope="module")
def report():
    """A proxy that knows more than the size, one that only repeats it, one that knows nothing."""
    generator = np.random.default_rng(7)
    sizes = generator.uniform(1, 4, size=160)
    secret = generator.normal(size=160)
    measured = np.exp(-2 * sizes + secret)
    predicted = {
        "knows": np.exp(-2 * sizes + secret + 0.3 * generator.normal(size=160)),
        "size_again": 10 - sizes,
        "nothing": generator.normal(size=160),
    }
    bops = sizes * generator.lognormal(0, 0.1, size=160)
    return trust_report(predicted, measured, sizes, bops, seconds={"knows": 2.5}, draws=300)


def test_the_report_tells_the_proxy_that_knows_from_the_one_that_repeats_the_size(report):
    rows = report.rows
    assert list(rows) == ["knows", "size_again", "nothing", "size", "bops", "random"]
    assert rows["knows"].kendall_fixed.low > rows["size_again"].kendall_fixed.high
    assert rows["size_again"].kendall.low > 0.5
    assert abs(rows["size_again"].kendall_fixed.value) < 0.25
    assert rows["size_again"].spearman_fixed is None
    assert rows["knows"].spearman_fixed.value > 0.9
    assert rows["nothing"].kendall_fixed.low < 0 < rows["nothing"].kendall_fixed.high
    assert rows["knows"].regret_fixed < rows["size_again"].regret_fixed < 1
    assert rows["knows"].power.factor < rows["size_again"].power.factor
    assert rows["knows"].seconds == 2.5


def test_the_baselines_are_what_they_say(report):
    rows = report.rows
    assert rows["size"].kendall == rows["size_again"].kendall
    assert [name for name, row in rows.items() if row.baseline] == ["size", "bops", "random"]
    random = rows["random"]
    assert random.spearman.value == 0
    assert random.spearman.low < 0 < random.spearman.high
    spread = 1.96 / np.sqrt(report.points - 1)  # of Spearman's rho of independent variables
    assert random.spearman.high == pytest.approx(spread, rel=0.25)
    assert (random.regret, random.regret_fixed) == (1, 1)


def test_every_interval_holds_its_value_and_the_report_is_plain_data(report):
    for row in report.rows.values():
        for name in ("spearman", "kendall", "spearman_fixed", "kendall_fixed"):
            found = getattr(row, name)
            assert found is None or -1 <= found.low <= found.value <= found.high <= 1
    plain = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert plain["points"] == 160
    assert plain["top"] == TOP
    assert plain["rows"]["knows"]["kendall"]["low"] == report.rows["knows"].kendall.low


def test_few_points_give_no_statement_instead_of_a_wrong_one():
    measured = np.array([1.0, 2.0, 3.0])
    found = trust_report({"p": measured}, measured, np.array([1.0, 2.0, 3.0]), measured, draws=50)
    assert found.pairs == 0
    row = found.rows["p"]
    assert row.kendall_fixed is row.regret is row.regret_fixed is row.power is row.monotone is None
    assert row.kendall.value == 1
    constant = trust_report({"p": np.zeros(3)}, measured, measured, measured, draws=50).rows["p"]
    assert constant.spearman is constant.kendall is None
    flat = trust_report({"p": measured}, np.ones(3), measured, measured, draws=50)
    assert flat.rows["random"].spearman is None
    json.dumps(flat.to_dict(), allow_nan=False)


def test_a_proxy_with_the_name_of_a_baseline():
    values = np.array([1.0, 2.0, 4.0])
    with pytest.raises(InvalidInput, match="called 'size'"):
        trust_report({"size": values}, values, values, values, draws=10)
    rows = trust_report({"p": values, "bops": -values}, values, values, values, draws=10).rows
    assert list(rows) == ["p", "bops", "size", "random"]
    assert rows["bops"].baseline
