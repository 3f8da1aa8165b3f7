"""The REINFORCE controller: a toy space with a known optimum, the gradient, what it does with failures."""

import math

import numpy as np
import pytest
from bitfront.architecture import ArchitectureSpace, Dimension
from bitfront.errors import InvalidInput
from bitfront.search.joint import Proposer, Told
from bitfront.search.joint.reinforce import Reinforce
from bitfront.search.joint.reinforce_rewards import AbsoluteReward, FrontReward, SoftReward

WIDTHS = (1, 2, 3, 4)


def toy():
    """Depth 1 to 3, and a width for each of the layers that exist: 4 + 16 + 64 architectures."""
    depth = Dimension("depth", "depth", (1, 2, 3))
    widths = [
        Dimension(f"w{n}", "width", WIDTHS, () if n == 1 else (("depth", tuple(range(n, 4))),)) for n in (1, 2, 3)
    ]
    return ArchitectureSpace((depth, *widths))


def price(choices):
    return float(sum(int(value) for name, value in choices.items() if name != "depth"))


def wrong(choices):
    """Falls with every layer; the last layer is worth three of the first."""
    worth = sum(int(name[1]) * int(value) for name, value in choices.items() if name != "depth")
    return 0.5 * math.exp(-worth / 10)


def told(choices):
    front = np.array([[wrong(choices), price(choices)], [2 * wrong(choices), price(choices) / 2]])
    return Told(choices, wrong(choices), front, 1.0, 0.0)


def searched(proposer, rounds=14, count=4):
    known = []
    for _ in range(rounds):
        known += proposer.ask(count)
        proposer.tell([told(each) for each in known])
    return known


@pytest.mark.parametrize("reward", [AbsoluteReward(7.0, strength=0.5), SoftReward(7.0, exponent=-0.3)])
def test_the_policy_finds_the_known_optimum_of_a_toy_space(reward):
    best = sorted((reward(told(each)) for each in toy().all()), reverse=True)
    ranks = []
    for seed in range(5):
        known = searched(Reinforce(toy(), seed, reward, rate=0.3))
        assert len(known) == len(set(known)) == 56
        late = np.mean([reward(told(each)) for each in known[20:40]])
        assert late > np.mean([reward(told(each)) for each in known[:8]])
        ranks.append(best.index(max(reward(told(each)) for each in known[:40])))
    assert np.median(ranks) <= 1  # of 84 architectures, after 40


def test_the_policy_becomes_certain_of_the_best_answers_of_a_large_space():
    """4^8 architectures, the best one known: every dimension on its own; chance gets two of eight right."""
    draw = np.random.default_rng(0)
    worth = draw.permuted(np.tile(np.linspace(0, 1, 4), (8, 1)), axis=1)
    space = ArchitectureSpace(tuple(Dimension(f"d{n}", "width", WIDTHS) for n in range(8)))

    def gap(choices):
        return 8.0 - float(worth[np.arange(8), space.indices(choices)].sum())

    right = []
    for seed in range(3):
        proposer, known = Reinforce(space, seed), []
        for _ in range(60):
            known += proposer.ask(4)
            proposer.tell([Told(each, 0.5, np.array([[0.5, 1.0]]), gap(each), 0.0) for each in known])
        right.append(int((space.indices(proposer.most_likely()) == worth.argmax(axis=1)).sum()))
    assert min(right) >= 6


def test_the_seed_decides():
    first, second, other = (searched(Reinforce(toy(), seed, AbsoluteReward(7.0))) for seed in (3, 3, 4))
    assert first == second
    assert first != other


def test_a_step_is_the_policy_gradient():
    """Against finite differences of the sum of advantages times log-probabilities."""
    space = toy()
    proposer = Reinforce(space, 0, AbsoluteReward(7.0), rate=0.5, entropy=0.0)
    asked = proposer.ask(6)
    before = {label: values.copy() for label, values in proposer.logits.items()}
    rewards = np.array([proposer.reward(told(each)) for each in asked])
    advantages = (rewards - rewards.mean()) / rewards.std()
    proposer.tell([told(each) for each in asked])

    def objective(logits):
        total = 0.0
        for choices, advantage in zip(asked, advantages, strict=True):
            for name, value in choices.items():
                at = logits[f"architecture:{name}"]
                index = space.by_name[name].values.index(value)
                total += advantage * (at[index] - math.log(np.exp(at).sum()))
        return total

    for label, values in before.items():
        for index in range(len(values)):
            moved = {key: each.copy() for key, each in before.items()}
            moved[label][index] += 1e-6
            slope = (objective(moved) - objective(before)) / 1e-6
            assert proposer.logits[label][index] - values[index] == pytest.approx(0.5 * slope, abs=1e-4)


def test_entropy_alone_flattens_the_policy():
    proposer = Reinforce(toy(), 0, AbsoluteReward(7.0), rate=0.5, entropy=1.0)
    asked = proposer.ask(1)
    proposer.logits["architecture:depth"] = np.array([2.0, 0.0, 0.0])
    before = proposer.probabilities("architecture:depth")
    proposer.tell([told(each) for each in asked])  # one architecture: no advantage
    after = proposer.probabilities("architecture:depth")
    assert after[0] < before[0]
    assert -(after * np.log(after)).sum() > -(before * np.log(before)).sum()


def test_what_is_still_to_be_measured_is_not_taken_for_failed():
    proposer = Reinforce(toy(), 0, AbsoluteReward(7.0), entropy=0.0)
    asked = proposer.ask(5)
    lost = [Told(each, math.inf, np.zeros((0, 2)), math.inf, 0.0) for each in asked]
    proposer.tell(lost)
    assert all((values == 0).all() for values in proposer.logits.values())
    proposer.tell([told(each) for each in asked[1:]] + lost[:1])  # now one has failed
    worst = min(proposer.reward(told(each)) for each in asked[1:])
    twin = Reinforce(toy(), 0, lambda each: proposer.reward(each) if len(each.front) else worst, entropy=0.0)
    assert twin.ask(5) == asked
    rewards = np.array([proposer.reward(told(each)) for each in asked[1:]])
    step = proposer.rate * (worst - rewards.mean()) / rewards.std()
    depth = toy().by_name["depth"].values.index(asked[0]["depth"])
    others = sum(
        (proposer.reward(told(each)) - rewards.mean()) / rewards.std() * ((each["depth"] == asked[0]["depth"]) - 1 / 3)
        for each in asked[1:]
    )
    expected = step * (1 - 1 / 3) + proposer.rate * others
    assert proposer.logits["architecture:depth"][depth] == pytest.approx(expected)


def test_every_architecture_is_proposed_once_until_there_are_no_more():
    proposer, known = Reinforce(toy(), 1, AbsoluteReward(7.0), rate=0.05), []
    while found := proposer.ask(7):
        known += found
        proposer.tell([told(each) for each in known])
    assert len(known) == len(set(known))
    assert len(known) >= 80  # of 84: what is left has become too unlikely


def test_what_others_asked_for_is_not_asked_for_again():
    proposer = Reinforce(toy(), 0)
    assert isinstance(proposer, Proposer)
    every = list(toy().all())
    proposer.tell([told(each) for each in every[:-1]])
    assert proposer.ask(3) == [every[-1]]


def test_rewards_are_of_the_best_point_of_a_front():
    each = Told(toy().smallest(), 0.2, np.array([[0.2, 8.0], [0.4, 4.0]]), 0.25, 0.0)
    assert FrontReward()(each) == -0.25
    assert AbsoluteReward(4.0, strength=1.0)(each) == pytest.approx(max(-0.2 - 1.0, -0.4))
    assert AbsoluteReward(4.0, strength=0.1, unit=0.1)(each) == pytest.approx(max(-2 - 0.1, -4))
    assert SoftReward(4.0, -0.07)(each) == pytest.approx(max(0.8 * 2**-0.07, 0.6))
    empty = Told(toy().smallest(), math.inf, np.zeros((0, 2)), math.inf, 0.0)
    assert AbsoluteReward(4.0)(empty) == SoftReward(4.0)(empty) == FrontReward()(empty) == -math.inf


@pytest.mark.parametrize(
    ("made", "told_to"),
    [
        (lambda: Reinforce(toy(), rate=0.0), "rate must be positive"),
        (lambda: Reinforce(toy(), entropy=-1.0), "0 or more"),
        (lambda: AbsoluteReward(0.0), "above 0"),
        (lambda: AbsoluteReward(1.0, strength=0.0), "must be positive"),
        (lambda: SoftReward(1.0, 0.1), "fall with the price"),
        (lambda: SoftReward(math.nan), "above 0"),
        (
            lambda: SoftReward(1.0)(Told(toy().smallest(), 2.3, np.array([[2.3, 1.0]]), 0.0, 0.0)),
            "use AbsoluteReward",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused(made, told_to):
    with pytest.raises(InvalidInput, match=told_to):
        made()
