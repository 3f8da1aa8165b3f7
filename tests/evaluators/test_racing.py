"""The race against a naive loop, by enumeration of all orders, and by simulation of its error rate and power."""

import itertools
import math

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront.errors import InvalidInput
from bitfront.evaluators.racing import Race, smallest_value
from hypothesis import given, settings
from hypothesis import strategies as st

REPEATS = 400


def naive_wealth(candidate, rival, margin=0.0):
    """One sample at a time, from the formulas of the module docstring."""
    allowed = sum(rival) + len(rival) * margin
    mean = allowed / len(rival)
    wealths = {(c, f): 1.0 for c in (0, 3, math.inf) for f in (0.1, 0.3, 0.8)}
    path = []
    for t, x in enumerate(candidate):
        to_come = rival[t:]
        expected = (allowed - sum(candidate[:t])) / len(to_come)
        for (c, f), wealth in wealths.items():
            clipped = [min(y, c * mean if c < math.inf else math.inf) for y in to_come]
            average = sum(clipped) / len(clipped)
            stake = f / (expected + max(clipped) - average)
            wealths[c, f] = wealth * (1 + stake * ((x - expected) - (clipped[0] - average)))
        path.append(sum(wealths.values()) / len(wealths))
    return path


def test_against_a_loop():
    rng = np.random.default_rng(0)
    rival = rng.exponential(size=30)
    candidate = rival * rng.uniform(0.2, 1.8, size=30)
    for margin in (0.0, 0.3):
        race = Race(rival, margin=margin)
        expected = naive_wealth(candidate[:20].tolist(), rival.tolist(), margin)
        np.testing.assert_allclose(race.wealth(candidate[:20]), expected, rtol=1e-10)
        assert race.p_value(candidate[:20]) == pytest.approx(1 / max(1, *expected))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 50)), min_size=2, max_size=5))
def test_the_bets_are_fair_over_all_orders(pairs):
    """Of equal means, the mean wealth over all orders of the samples is 1 after every sample: no drift, exactly."""
    x, y = np.array(pairs).T
    if min(x.sum(), y.sum()) < 1e-3:
        return
    x = x * (y.sum() / x.sum())
    orders = [list(order) for order in itertools.permutations(range(len(x)))]
    paths = np.array([Race(y[order]).wealth(x[order]) for order in orders])
    assert (paths >= 0).all()
    np.testing.assert_allclose(paths.mean(0), 1, rtol=1e-6)


def stopped_at(x, y, batch=16, **options):
    """How many samples a race saw, and whether it was lost."""
    race = Race(y, **options)
    for stop in range(batch, len(y), batch):
        if race.lost(x[:stop]):
            return stop, True
    return len(y), False


def equal(rng, samples):
    """Independent log-normal values, brought to one mean."""
    return rng.lognormal(sigma=1.5, size=samples), rng.lognormal(sigma=1.5, size=samples)


def heavy_rival(rng, samples):
    """The rival has rare huge values that the first batches do not show, the candidate none."""
    return rng.uniform(0.9, 1.1, size=samples), rng.lognormal(sigma=2, size=samples)


def related(rng, samples):
    shared = rng.normal(size=samples)
    return (np.exp(1.2 * shared + 0.6 * rng.normal(size=samples)) for _ in range(2))


def errors(rng, samples):
    """Of 0 and 1, wrong on different samples."""
    wrong = np.arange(samples) < samples // 20
    return rng.permutation(wrong).astype(float), rng.permutation(wrong).astype(float)


def losses(draw, ratio=1.0, samples=200, repeats=REPEATS, seed=1):
    """Share of lost races, and mean share of the data seen; the candidate's mean is made ``ratio`` of the rival's."""
    rng, results = np.random.default_rng(seed), []
    for _ in range(repeats):
        x, y = draw(rng, samples)
        x, order = x if ratio is None else x * (ratio * y.sum() / x.sum()), rng.permutation(samples)
        results.append(stopped_at(x[order], y[order]))
    return np.mean([lost for _, lost in results]), np.mean([seen for seen, _ in results]) / samples


@pytest.mark.parametrize("draw", [equal, heavy_rival, related, errors])
def test_a_candidate_that_is_not_worse_is_stopped_at_most_as_often_as_promised(draw):
    rate, _ = losses(draw)
    assert rate <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / REPEATS)


def test_a_sequential_t_test_would_err_where_the_race_does_not():
    """Why no normality is assumed: a paired t-test after every batch stops most of the candidates that are no worse."""
    rng, wrong = np.random.default_rng(2), 0
    for _ in range(100):
        x, y = heavy_rival(rng, 200)
        gap = x * (y.sum() / x.sum()) - y
        rng.shuffle(gap)
        seen = [gap[:stop] for stop in range(16, 200, 16)]
        wrong += any(each.mean() > 1.7 * each.std(ddof=1) / math.sqrt(len(each)) for each in seen)
    assert wrong > 30
    assert losses(heavy_rival, repeats=100)[0] <= 0.05


def test_a_candidate_that_is_better_is_kept():
    assert losses(related, ratio=0.9, repeats=200)[0] <= 0.01


def more_errors(rng, samples):
    """The rival is wrong on 5 %, the candidate on 20 %."""
    wrong = np.arange(samples) < samples // 20
    return (np.arange(samples) < samples // 5).astype(float), wrong.astype(float)


@pytest.mark.parametrize(
    ("draw", "ratio", "seen"), [(related, 2, 0.25), (related, 5, 0.1), (equal, 2, 0.35), (more_errors, None, 0.2)]
)
def test_a_candidate_that_is_much_worse_is_stopped_early(draw, ratio, seen):
    lost, share = losses(draw, ratio, repeats=100)
    assert lost == 1
    assert share < seen


def test_pairing_sees_small_differences():
    """10 % worse on every sample: seen in the pairs well before the end, though the values vary 30-fold."""
    rng = np.random.default_rng(3)
    rival = rng.lognormal(sigma=1.0, size=1000)
    seen, lost = stopped_at(1.1 * rival, rival)
    assert lost
    assert seen < 500


def test_what_is_certain():
    """Half the samples cost more than the rival's all: no order of the rest can change that."""
    race = Race(np.full(10, 1.0), error=1e-9)
    assert race.p_value([2.1] * 5) == 0
    assert race.lost([2.1] * 5)
    assert not race.lost([2.0] * 5)


def test_the_rival_does_not_lose_against_itself():
    rival = np.random.default_rng(4).lognormal(sigma=2, size=300)
    race = Race(rival, error=0.5)
    assert not any(race.lost(rival[:stop]) for stop in range(301))
    assert race.p_value(rival) == pytest.approx(1, abs=0.05)


def test_against_a_perfect_rival_any_mistake_is_worse():
    race = Race(np.zeros(8))
    assert not race.lost(np.zeros(8))
    assert race.lost([0, 0, 1e-6])


def test_more_samples_do_not_take_a_loss_back():
    rng = np.random.default_rng(5)
    rival = rng.exponential(size=100)
    candidate = np.concatenate([rng.exponential(4, size=50), np.zeros(50)])
    race = Race(rival)
    values = [race.p_value(candidate[:stop]) for stop in range(101)]
    assert values == sorted(values, reverse=True)
    assert values[0] == 1


@given(st.floats(-100, 100), st.integers(1, 40))
def test_values_count_from_the_floor(floor, seen):
    rng = np.random.default_rng(6)
    rival, candidate = rng.exponential(size=40), rng.exponential(1.5, size=40)[:seen]
    moved = Race(rival + floor, floor=floor - 1e-9)  # the sums round
    assert moved.p_value(candidate + floor) == pytest.approx(Race(rival).p_value(candidate), rel=1e-4)


def test_a_margin_allows_so_much():
    rng = np.random.default_rng(7)
    rival = rng.normal(3, 0.3, size=400)
    candidate = rival + 0.2
    assert stopped_at(candidate, rival)[1]
    assert not stopped_at(candidate, rival, margin=math.log(1.25))[1]  # up to 25 % more perplexity
    assert stopped_at(candidate, rival, margin=math.log(1.05))[1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Race([]), "has no values; measure it on the whole split first"),
        (lambda: Race([1.0, math.nan]), "values of the rival in a race must be finite"),
        (lambda: Race([[1.0]]), "must be finite numbers"),
        (lambda: Race([1.0, -0.5]), "a value of the rival is -0.5, below the floor 0 of the race"),
        (lambda: Race([1.0], error=0), "error=0: the error rate of a race lies between 0 and 1"),
        (lambda: Race([1.0], error=5), "such as 0.05"),
        (lambda: Race([1.0], margin=math.inf), "margin=inf and floor=0.0 of a race must be finite"),
        (lambda: Race([1.0]).lost([1.0, 2.0]), "a race over 1 samples got 2 values"),
        (lambda: Race([1.0]).lost([math.inf]), "values of the candidate in a race must be finite"),
        (lambda: Race([1.0]).lost([-1.0]), "a value of the candidate is -1, below the floor 0 .* do not race"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(InvalidInput, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("quality", "loss", "floor"),
    [
        ("kl", None, 0), ("accuracy", None, 0), ("top5", None, 0), ("cosine", None, 0), ("relative_error", None, 0),
        ("perplexity", None, 0), ("loss", None, 0), ("kl", torch.nn.MSELoss(), 0), ("loss", torch.nn.MSELoss(), None),
        ("perplexity", torch.nn.CrossEntropyLoss(), None), (lambda o, t: o[:, 0], None, None),
    ],
)  # fmt: skip
def test_which_metrics_have_a_floor(quality, loss, floor):
    data = [(torch.randn(2, 3), torch.zeros(2, dtype=torch.int64))] * 2
    task = bf.Task(torch.nn.Linear(3, 7), calibration=data, validation=data, quality=quality, loss=loss)
    assert smallest_value(task) == floor
