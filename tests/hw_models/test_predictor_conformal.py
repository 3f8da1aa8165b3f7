"""Conformal intervals: the quantile, folds by weight shape, and coverage where the difficulty varies."""

import math

import numpy as np
import pytest
from bitfront.hw_models.gemm import MeasuredGemms
from bitfront.hw_models.predictor.conformal import Difficulty, quantile, scores, shape_folds


def table(shapes, per_shape, seed):
    rng = np.random.default_rng(seed)
    n = np.repeat(64 * rng.choice(np.arange(1, 400), shapes, replace=False), per_shape)
    k = np.repeat(64 * rng.integers(1, 200, shapes), per_shape)
    m = np.tile(2 ** np.arange(per_shape), shapes)
    rows = len(m)
    return MeasuredGemms(np.full(rows, "nvidia-t4"), np.full(rows, "fp16"), m, n, k, np.ones(rows))


def test_quantile_is_the_rank_with_one_unseen_score_above():
    assert quantile(np.arange(1.0, 10.0), 0.9) == 9.0  # ceil(10 * 0.9) = 9th of 9
    assert quantile(np.arange(1.0, 20.0), 0.9) == 18.0
    assert quantile(np.arange(1.0, 9.0), 0.9) == math.inf  # rank 9 of 8
    assert quantile(np.empty(0), 0.5) == math.inf


def test_a_shape_is_in_one_fold_and_folds_are_even():
    rows = table(50, 6, seed=0)
    fold = shape_folds(rows, 5, seed=3)
    shape = rows.n * 100_000 + rows.k
    assert all(len(np.unique(fold[shape == each])) == 1 for each in np.unique(shape))
    assert np.bincount(fold).tolist() == [60] * 5
    assert (fold == shape_folds(rows, 5, seed=3)).all()
    assert (fold != shape_folds(rows, 5, seed=4)).any()


def test_intervals_cover_new_shapes_also_where_errors_are_ten_times_larger():
    def errors(rows, seed):
        size = np.where(rows.m >= 64, 0.2, 0.02)
        return size * np.random.default_rng(seed).standard_normal(len(rows))

    rows, new = table(200, 12, seed=1), table(200, 12, seed=2)
    seen = errors(rows, 5)
    margin = quantile(scores(rows, seen, shape_folds(rows, 5, 0), seed=0), 0.9)
    held = np.abs(errors(new, 6)) <= margin * Difficulty(rows, seen, seed=0)(new)
    assert held.mean() == pytest.approx(0.9, abs=0.025)
    assert held[new.m >= 64].mean() == pytest.approx(0.9, abs=0.05)
    assert held[new.m < 64].mean() == pytest.approx(0.9, abs=0.05)
