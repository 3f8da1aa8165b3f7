"""The bandit: its formula, regret when the best arm changes, and what counts as an improvement."""

import math

import numpy as np
import pytest
from bitfront.errors import InvalidInput
from bitfront.search.bandit import Bandit, ranked
from hypothesis import given
from hypothesis import strategies as st

ARMS = ("a", "b", "c")


def naive(history, discount, exploration, count, without=()):
    """Discounted UCB by its definition: history of rounds, each a list of (arm, reward)."""
    given_now = []
    for _ in range(count):
        indices = {}
        pulls = {
            arm: sum(
                discount ** (len(history) - 1 - at)
                for at, each in enumerate(history)
                for name, _ in each
                if name == arm
            )
            for arm in ARMS
        }
        total = sum(pulls.values()) + len(given_now)
        for arm in ARMS:
            if arm in without:
                continue
            gained = sum(
                discount ** (len(history) - 1 - at) * reward
                for at, each in enumerate(history)
                for name, reward in each
                if name == arm
            )
            number = pulls[arm] + given_now.count(arm)
            mean = gained / pulls[arm] if pulls[arm] else 0.0
            bonus = math.sqrt(exploration * math.log(max(1.0, total)) / number) if number else math.inf
            indices[arm] = mean + bonus
        given_now.append(max(indices, key=indices.get))
    return {arm: given_now.count(arm) for arm in ARMS}


@given(st.integers(0, 10**6))
def test_shares_are_those_of_the_definition(seed):
    generator = np.random.default_rng(seed)
    bandit, history = Bandit(ARMS, discount=0.8, exploration=0.3), []
    for _ in range(5):
        count, without = int(generator.integers(1, 9)), ("b",) if generator.random() < 0.2 else ()
        shares = bandit.shares(count, without)
        assert shares == naive(history, 0.8, 0.3, count, without)
        found = {name: generator.random(number) * (generator.random(number) < 0.5) for name, number in shares.items()}
        flat = np.concatenate([found[name] for name in ARMS])
        names = [name for name in ARMS for _ in found[name]]
        bandit.reward(found)
        history.append(list(zip(names, ranked(flat).tolist(), strict=True)))


def test_every_arm_is_tried_before_any_is_tried_twice_also_over_rounds():
    bandit = Bandit(ARMS)
    assert bandit.shares(2) == {"a": 1, "b": 1, "c": 0}
    bandit.reward({"a": [5.0], "b": [0.0]})
    assert bandit.shares(1) == {"a": 0, "b": 0, "c": 1}


def regret(choose, learn, rounds=60, count=8):
    """Evaluations that did not go to the best arm, when the best arm changes half way; rewards shrink all the time."""
    generator = np.random.default_rng(7)
    lost = 0
    for at in range(rounds):
        chances = (0.7, 0.2, 0.1) if at < rounds // 2 else (0.1, 0.2, 0.7)
        shares = choose(count)
        lost += sum(number for arm, number in shares.items() if chances[ARMS.index(arm)] < 0.7)
        learn(
            {
                arm: 0.9**at * generator.random(number) * (generator.random(number) < chances[ARMS.index(arm)])
                for arm, number in shares.items()
            }
        )
    return lost / (rounds * count)


def test_regret_is_far_below_that_of_equal_shares_and_of_never_forgetting():
    bandit, stubborn = Bandit(ARMS), Bandit(ARMS, discount=1.0, exploration=0.0)
    equal = regret(lambda count: {"a": 3, "b": 3, "c": count - 6}, lambda found: None)
    learnt = regret(bandit.shares, bandit.reward)
    assert learnt < 0.5 * equal
    assert learnt < regret(stubborn.shares, stubborn.reward)


def test_an_arm_that_has_nothing_left_gets_nothing_and_the_report_is_plain():
    bandit = Bandit(ARMS)
    bandit.reward({"a": [1.0, 0.0], "b": [0.0], "c": [2.0]})
    assert bandit.shares(6, without=["c"])["c"] == 0
    assert sum(bandit.shares(6, without=ARMS).values()) == 0
    report = {each.name: each for each in bandit.report()}
    assert (report["a"].evaluations, report["a"].improved, report["a"].shares) == (2, 1, (2,))
    assert report["a"].credit == pytest.approx(0.375)
    assert report["c"].credit == pytest.approx(1.0)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=12), st.floats(1e-6, 1e6))
def test_rewards_are_ranks_and_do_not_depend_on_the_size_of_the_improvements(values, factor):
    improvements = np.array(values)
    rewards = ranked(improvements)
    assert ((rewards > 0) == (improvements > 0)).all()
    assert rewards.max() <= 1
    for one, other in np.ndindex(len(values), len(values)):
        if improvements[one] > improvements[other]:
            assert rewards[one] > rewards[other]
    if np.array_equal(np.argsort(improvements * factor, kind="stable"), np.argsort(improvements, kind="stable")):
        scaled = improvements * factor
        if len(set(scaled.tolist())) == len(set(values)) and ((scaled > 0) == (improvements > 0)).all():
            assert np.array_equal(ranked(scaled), rewards)


def test_bad_input_is_refused():
    for arms, options in (((), {}), (("a", "a"), {}), (ARMS, {"discount": 0.0}), (ARMS, {"exploration": -1.0})):
        with pytest.raises(InvalidInput):
            Bandit(arms, **options)
    for improvements in ({"z": [1.0]}, {"a": [-1.0]}, {"a": [math.nan]}):
        with pytest.raises(InvalidInput):
            Bandit(ARMS).reward(improvements)
