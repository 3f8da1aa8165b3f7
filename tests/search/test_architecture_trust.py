"""The trust report of architecture proxies."""

import math

import numpy as np
import pytest
from bitfront.errors import InvalidInput
from bitfront.search.architecture_trust import architecture_trust_report
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau, rankdata, spearmanr


def networks(count=60, seed=0):
    draw = np.random.default_rng(seed)
    params = draw.uniform(0.1, 2, count)
    accuracy = 80 + 5 * params + draw.normal(size=count)
    return accuracy, params, params * draw.uniform(0.9, 1.1, count)


def residual(values, given_):
    """What a straight line in the other leaves."""
    design = np.stack([np.ones(len(given_)), given_], axis=1)
    return values - design @ np.linalg.lstsq(design, values, rcond=None)[0]


def test_the_statistics_are_those_of_scipy():
    accuracy, params, flops = networks()
    score = accuracy + np.random.default_rng(1).normal(size=60)
    report = architecture_trust_report(
        {"mine": score}, accuracy, params, flops, picks=5, share=0.2, seconds={"mine": 1.5}
    )
    row = report.rows["mine"]
    assert row.spearman.value == pytest.approx(spearmanr(score, accuracy)[0])
    assert row.kendall.value == pytest.approx(kendalltau(score, accuracy)[0])
    ranked = [residual(rankdata(each), rankdata(params)) for each in (score, accuracy)]
    assert row.spearman_fixed.value == pytest.approx(np.corrcoef(*ranked)[0, 1])
    best = np.argsort(accuracy)[-12:]
    assert report.best == 12
    assert row.spearman_best.value == pytest.approx(spearmanr(score[best], accuracy[best])[0])
    assert row.regret.value == pytest.approx(accuracy.max() - accuracy[np.argsort(score)[-5:]].max())
    for each in (row.spearman, row.kendall, row.spearman_fixed, row.spearman_best, row.regret):
        assert each.low <= each.value <= each.high
    assert row.seconds == 1.5
    assert not row.baseline


def test_the_baselines_stand_beside():
    accuracy, params, flops = networks()
    report = architecture_trust_report({"params": params, "flops": flops}, accuracy, params, flops, picks=5)
    assert list(report.rows) == ["params", "flops", "random"]
    assert all(row.baseline for row in report.rows.values())
    assert report.rows["params"].spearman.value == pytest.approx(spearmanr(params, accuracy)[0])
    assert report.rows["params"].spearman_fixed is None
    chance = report.rows["random"]
    assert chance.spearman.value == 0
    assert chance.spearman.low < 0 < chance.spearman.high
    drawn = np.random.default_rng(3)
    missed = [accuracy.max() - drawn.choice(accuracy, 5, replace=False).max() for _ in range(20_000)]
    assert chance.regret.value == pytest.approx(np.mean(missed), abs=0.03)


def test_a_perfect_proxy_and_its_opposite():
    accuracy, params, flops = networks()
    report = architecture_trust_report({"best": accuracy, "worst": -accuracy}, accuracy, params, flops, picks=1)
    assert report.rows["best"].spearman.value == pytest.approx(1)
    assert report.rows["best"].regret.value == 0
    assert report.rows["worst"].spearman.value == pytest.approx(-1)
    assert report.rows["worst"].regret.value == pytest.approx(accuracy.max() - accuracy.min())


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([-math.inf, 0.0, 1.0, 2.0]), min_size=8, max_size=8), st.integers(1, 7))
def test_ties_and_minus_infinity_are_ranked(values, picks):
    accuracy, params, flops = networks(8)
    score = np.array(values)
    report = architecture_trust_report({"mine": score}, accuracy, params, flops, picks=picks, draws=5)
    row = report.rows["mine"]
    if len(set(values)) > 1:
        assert row.spearman.value == pytest.approx(spearmanr(rankdata(score), accuracy)[0])
    else:
        assert row.spearman is None
    # tied networks come in any order: the mean over many
    draw = np.random.default_rng(0)
    orders = [np.lexsort((draw.random(8), rankdata(score)))[-picks:] for _ in range(2000)]
    missed = [accuracy.max() - accuracy[order].max() for order in orders]
    assert row.regret.value == pytest.approx(np.mean(missed), abs=6 * np.std(missed) / math.sqrt(2000) + 1e-9)


def test_too_few_of_the_best_are_not_ranked():
    accuracy, params, flops = networks()
    report = architecture_trust_report({"mine": accuracy}, accuracy, params, flops, share=0.05)
    assert report.best == 3
    assert all(row.spearman_best is None for row in report.rows.values())


def test_the_table_has_a_row_a_proxy():
    accuracy, params, flops = networks()
    report = architecture_trust_report({"mine": accuracy}, accuracy, params, flops)
    table = report.table
    assert list(table.index) == ["mine", "params", "flops", "random"]
    assert table.loc["mine", "spearman"] == report.to_dict()["rows"]["mine"]["spearman"]["value"]
    assert table.loc["mine", "regret_high"] == report.rows["mine"].regret.high
    assert np.isnan(table.loc["params", "spearman_fixed"])


def test_what_does_not_fit_is_refused():
    accuracy, params, flops = networks()
    with pytest.raises(InvalidInput, match="called 'random'"):
        architecture_trust_report({"random": accuracy}, accuracy, params, flops)
    with pytest.raises(InvalidInput, match="mine must hold 60 numbers"):
        architecture_trust_report({"mine": accuracy[:-1]}, accuracy, params, flops)
    with pytest.raises(InvalidInput, match="none of them NaN"):
        architecture_trust_report({"mine": accuracy * math.nan}, accuracy, params, flops)
    with pytest.raises(InvalidInput, match="picks from 1 to 59"):
        architecture_trust_report({"mine": accuracy}, accuracy, params, flops, picks=60)
