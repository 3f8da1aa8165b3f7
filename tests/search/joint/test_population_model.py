"""The model-based sampler, its expected gain, crowding, and samplers as proposers of a nested search."""

import numpy as np
import pytest
from bitfront.errors import InvalidInput
from bitfront.search.joint import run_joint
from bitfront.search.joint.decisions import ArchitectureDecisions
from bitfront.search.joint.hypervolume_gain import expected_gain, gain
from bitfront.search.joint.mixed_process import Inputs, MixedProcess, Warp
from bitfront.search.joint.model_based import ModelBased
from bitfront.search.joint.nsga2 import NondominatedSorting, crowding_distance, survival_order
from bitfront.search.joint.proposer import Told
from bitfront.search.joint.sampled_proposer import SampledProposer, proposer_from


@pytest.fixture(scope="module")
def decisions(digits):
    return ArchitectureDecisions(digits.architecture)


@pytest.mark.parametrize("count", [0, 1, 6])
def test_expected_gain_is_the_mean_over_draws(count):
    """Monte Carlo with the hypervolume of certain points; points beyond the reference and of equal price included."""
    draw = np.random.default_rng(count)
    measured = np.concatenate([np.column_stack([draw.uniform(3, 9, count), draw.uniform(0, 5, count)]), [[4.0, 7.0]]])
    reference, warp = np.array([8.0, 6.0]), Warp(1.0, 1.2, 0.6)
    prices = np.array([measured[0, 1], 0.5, 2.5, 5.9, 6.5])
    mean, deviation = draw.normal(size=5), draw.uniform(0.2, 1.0, 5)
    found = expected_gain(mean, deviation, warp, prices, measured, reference)
    for index, price in enumerate(prices):
        values = warp.backward(mean[index] + deviation[index] * draw.normal(size=4000))
        gains = gain(np.column_stack([values, np.full(4000, price)]), measured, reference)
        assert found[index] == pytest.approx(gains.mean(), abs=4 * gains.std() / 4000**0.5 + 1e-9)
    assert found[-1] == 0 < found[1]


def test_a_certain_value_gains_what_it_adds():
    measured, reference = np.array([[5.0, 1.0], [2.0, 3.0], [3.0, 4.0]]), np.array([6.0, 5.0])
    warp = Warp(0.0, 0.0, 1.0)
    points = np.array([[4.0, 2.0], [1.0, 0.5], [2.5, 3.5], [5.5, 0.9]])
    found = expected_gain(np.log(points[:, 0]), np.zeros(4), warp, points[:, 1], measured, reference)
    assert found == pytest.approx(gain(points, measured, reference))


def test_crowding_by_hand_and_copies_crowd_nobody_out():
    values = np.array([[0.0, 4.0], [1.0, 2.0], [1.0, 2.0], [3.0, 1.0], [4.0, 0.0]])
    assert crowding_distance(values).tolist() == [np.inf, 3 / 4 + 3 / 4, 0.0, 3 / 4 + 2 / 4, np.inf]
    worse = np.concatenate([values, [[5.0, 5.0]]])
    assert survival_order(worse)[-2:].tolist() == [2, 5]
    assert crowding_distance(np.ones((3, 2))).tolist().count(np.inf) == 1


def test_process_interpolates_and_returns_to_the_unknown_mean():
    """Beside its data the process knows the value; far from it the mean of the space, not of a cluster of copies."""
    draw = np.random.default_rng(0)
    inputs = Inputs(np.zeros((30, 0), dtype=np.int64), np.concatenate([draw.normal(0, 0.01, (24, 1)), [[-9], [9]] * 3]))
    values = np.concatenate([np.full(24, 1.0) + draw.normal(0, 1e-3, 24), np.full(6, 5.0)])
    process = MixedProcess.fit(inputs, values)
    near, spread = process.predict(inputs)
    assert process.warp.backward(near) == pytest.approx(values, rel=0.05)
    mean, deviation = process.predict(Inputs(np.zeros((1, 0), dtype=np.int64), np.array([[40.0]])))
    assert deviation[0] > 3 * spread.max()
    assert mean[0] > near.mean() + 0.5


def test_draws_of_the_process_have_its_moments():
    draw = np.random.default_rng(1)
    inputs = Inputs(draw.integers(0, 3, size=(15, 4)), draw.normal(size=(15, 1)))
    process = MixedProcess.fit(inputs, 1 + draw.random(15))
    asked = Inputs(draw.integers(0, 3, size=(4, 4)), draw.normal(size=(4, 1)))
    mean, deviation = process.predict(asked)
    drawn = process.sample(asked, draw, 20_000)
    assert drawn.mean(axis=0) == pytest.approx(mean, abs=0.05)
    assert drawn.std(axis=0) == pytest.approx(deviation, rel=0.05)


def _priced(genomes):
    """Price: how much there is; quality: the negative of it and a term that no price tells."""
    return np.array([[1.0 + sum(value for value in each.values() if isinstance(value, int))] for each in genomes])


def _values(genomes):
    prices = _priced(genomes)[:, 0]
    odd = [1.0 if each.get("block0.hidden") == 16 else 0.0 for each in genomes]
    return np.column_stack([100 / prices + 3 * np.array(odd), prices])


@pytest.mark.parametrize("prices", [None, _priced])
def test_failed_genomes_are_never_asked_for_again_and_the_rest_is_found(decisions, prices):
    """All 13 architectures come once; what failed (NaN) does not stop the model."""
    sampler = ModelBased(decisions, 0, prices, startup=4)
    found = []
    while asked := sampler.ask(3):
        values = _values(asked)
        values[[each["depth"] == 1 for each in asked], 0] = np.nan
        sampler.tell(asked, values)
        found += asked
    assert len(found) == len(set(found)) == 13


def test_a_batch_differs_and_pending_genomes_count_as_measured(decisions):
    sampler = ModelBased(decisions, 1, _priced, startup=5)
    first = sampler.ask(5)
    sampler.tell(first, _values(first))
    waiting = sampler.ask(2)
    later = sampler.ask(3)
    assert len({*first, *waiting, *later}) == 10
    sampler.tell(waiting, _values(waiting))
    assert not set(sampler.ask(3)) & {*first, *waiting, *later}


def test_features_are_asked_once_for_a_genome_and_the_wrong_shape_is_refused(decisions):
    seen = []

    def features(genomes):
        seen.extend(genomes)
        return _priced(genomes)

    sampler = ModelBased(decisions, 0, _priced, features, startup=4)
    for _ in range(3):
        asked = sampler.ask(4)
        sampler.tell(asked, _values(asked))
    assert len(seen) <= 200 + 13
    with pytest.raises(InvalidInput, match=r"give \[genomes, 2\]"):
        sampler.tell(asked, np.zeros((len(asked), 3)))
    with pytest.raises(InvalidInput, match="give 2 or more"):
        ModelBased(decisions, startup=1)


def test_a_proposer_tells_corners_and_failures(decisions):
    sampler = NondominatedSorting(decisions, 0)
    proposer = SampledProposer(sampler)
    asked = proposer.ask(3)
    fronts = [np.array([[1.0, 5.0], [2.0, 3.0]]), np.zeros((0, 2)), np.array([[4.0, 1.0]])]
    proposer.tell([Told(each, 1.0, front, 0.0, 0.5) for each, front in zip(asked, fronts, strict=True)])
    told = np.array([sampler.told[each] for each in asked])
    assert np.array_equal(told, [[1.0, 3.0], [np.nan, np.nan], [4.0, 1.0]], equal_nan=True)


@pytest.mark.parametrize(("sampler", "options"), [(ModelBased, {"startup": 3}), (NondominatedSorting, {})])
def test_a_sampler_proposes_in_a_nested_search(digits, digits_task, sampler, options):
    """Most of the 13 architectures are proposed within so few evaluations, each is valid, and a front comes out."""
    result = run_joint(
        digits_task,
        digits,
        formats=["w2", "w8"],
        objectives=["quality", "size_mb"],
        executor="local",
        evaluations=20,
        proposer=proposer_from(sampler, **options),
        store="sqlite://",
    )
    assert all(digits.architecture.choices(choices) == choices for choices in result.assessed)
    assert len(result.assessed) >= 6
    assert result.front["pareto"].sum() >= 2
