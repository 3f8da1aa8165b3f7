"""The foretold quality of genomes: the law, what architectures share, the ceiling, intervals, the fit itself."""

import numpy as np
import pytest
from bitfront.architecture import Choices
from bitfront.errors import InvalidInput
from bitfront.search.joint import QualityLaw, Seen
from bitfront.search.joint.architecture_kernel import ArchitectureKernel
from bitfront.search.joint.quality_fit import Fit
from bitfront.search.joint.quality_seen import Measured, loss_at
from hypothesis import given, settings
from hypothesis import strategies as st

NETS = [Choices((("depth", depth),)) for depth in range(8)]
NUMBERS = {net: np.log([1.0 + depth, 4.0 + 4 * depth]) for depth, net in enumerate(NETS)}


def world(power, factors, floats, *, scale=0.5, ceiling=np.inf, noise=0.0, seed=0, count=12, most=1.0, error=1e-3):
    """Measured genomes of a world in which the model is true, up to relative noise of the losses; NETS[0] first."""
    draw = np.random.default_rng(seed)
    seen = [Seen(net, 0.0, value, error) for net, value in zip(NETS, floats, strict=False)]
    for net, value, factor in zip(NETS, floats, factors, strict=False):
        for score in np.geomspace(1e-3, most, count):
            plain = factor * scale * score**power * np.exp(noise * draw.normal())
            lost = plain / (1 + plain / (ceiling - value))  # the logistic law in other words
            seen.append(Seen(net, float(score), value + lost, error))
    return seen


@pytest.mark.parametrize(("ceiling", "most", "near"), [(np.inf, 1.0, 0.03), (0.8, 20.0, 0.1)])
def test_a_true_law_is_found_again(ceiling, most, near):
    floats = [0.1, 0.2]
    found = QualityLaw.fit(NUMBERS, world(1.3, [1, 1], floats, ceiling=ceiling, most=most, error=5e-3))
    assert np.isfinite(found.ceiling) == np.isfinite(ceiling)
    if np.isfinite(ceiling):
        assert found.ceiling == pytest.approx(ceiling, rel=0.05)
    plain = 0.5 * 0.5**1.3
    assert found.power == pytest.approx(1.3, rel=near)
    assert found.predict(NETS[1], 0.5) == pytest.approx(0.2 + plain / (1 + plain / (ceiling - 0.2)), abs=0.02)
    assert found.predict(NETS[0], 0.0) == pytest.approx(0.1, abs=1e-3)


def test_what_collapses_is_foretold_to_collapse():
    """A power law through points at the ceiling is too flat; the ceiling keeps the slope of the others."""
    seen = world(3.0, [1], [0.1], scale=20.0, ceiling=0.8, most=3.0, count=9)
    found = QualityLaw.fit(NUMBERS, seen)
    held = world(3.0, [1], [0.1], scale=20.0, ceiling=0.8, most=3.0, count=31)[1:]
    worst = max(abs(found.predict(each.choices, each.score) - each.quality) for each in held)
    points = [each for each in seen if each.score > 0]
    slope, intercept = np.polyfit(
        np.log([each.score for each in points]), np.log([each.quality - 0.1 for each in points]), 1
    )
    flat = max(abs(0.1 + np.exp(intercept) * each.score**slope - each.quality) for each in held)
    assert worst < 0.1
    assert flat > 4 * worst


def test_an_architecture_that_loses_more_than_others_is_foretold_to():
    floats, factors = [0.1, 0.1, 0.1], [1.0, 4.0, 1.0]
    found = QualityLaw.fit(NUMBERS, world(1.0, factors, floats))
    assert np.exp(found.factors[NETS[1]] - found.factors[NETS[0]]) == pytest.approx(4.0, rel=0.15)


def test_architectures_that_were_not_measured_learn_from_those_like_them():
    """Small networks lose more; one that nothing was measured of is foretold so by its prices."""
    factors = np.exp(np.linspace(1.5, -1.5, 8))
    floats = np.linspace(0.3, 0.1, 8)
    known = [index for index in range(8) if index not in (1, 5)]
    seen = [each for each in world(1.0, factors, floats, noise=0.05) if NETS.index(each.choices) in known]
    seen.sort(key=lambda each: each.choices != NETS[7])  # the largest comes first
    found = QualityLaw.fit(NUMBERS, seen)
    for index in (1, 5):
        assert found.floats[NETS[index]] == pytest.approx(floats[index], abs=0.03)
        true = floats[index] + factors[index] * 0.5 * 0.3
        plain = 0.1 + 0.5 * 0.3
        assert abs(found.predict(NETS[index], 0.3) - true) < 0.35 * abs(plain - true)
        low, high = found.interval(NETS[index], 0.3)
        assert low <= true <= high


def test_float_networks_that_were_not_measured_are_told_by_quantized_ones():
    seen = [each for each in world(1.0, [1, 1], [0.1, 0.2]) if each.score > 0 or each.choices == NETS[0]]
    found = QualityLaw.fit(NUMBERS, seen)
    assert found.floats[NETS[1]] == pytest.approx(0.2, abs=0.01)


def test_a_predictor_is_believed_where_nothing_was_measured_and_mended_where_something_was():
    told = dict.fromkeys(NETS, 0.4) | {NETS[0]: 0.1, NETS[2]: 0.9}  # the truth of the second one is 0.2
    seen = [each for each in world(1.0, [1, 1], [0.1, 0.2]) if each.score > 0 or each.choices == NETS[0]]
    found = QualityLaw.fit(NUMBERS, seen, told)
    assert found.predict(NETS[1], 0.001) == pytest.approx(0.2, abs=0.02)
    assert found.floats[NETS[2]] > 0.6
    assert found.predict(NETS[0], 0.0) == pytest.approx(0.1, abs=0.01)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.floats(0, 2), st.floats(-0.5, 3)), max_size=25),
    st.lists(st.floats(1e-6, 10), min_size=2, max_size=8, unique=True),
)
def test_the_order_of_an_architectures_own_points_never_changes(measured, scores):
    seen = [Seen(NETS[0], 0.0, 0.3), *(Seen(NETS[index], score, quality) for index, score, quality in measured)]
    found = QualityLaw.fit(NUMBERS, seen)
    ordered = np.sort(np.array(scores))
    for net in NETS[:5]:
        values = found.qualities(net, ordered)
        assert np.isfinite(values).all()
        assert (np.diff(values) >= 0).all()
        low, high = found.interval(net, float(ordered[0]))
        assert low <= values[0] <= high
    assert found.power > 0


def test_intervals_cover():
    floats, factors, misses, total = [0.1, 0.2, 0.15], [1.0, 2.0, 0.6], 0, 0
    for seed in range(20):
        found = QualityLaw.fit(NUMBERS, world(1.1, factors, floats, noise=0.3, seed=seed))
        fresh = world(1.1, factors, floats, noise=0.3, seed=100 + seed)
        for each in [each for each in fresh if each.score > 0]:
            low, high = found.interval(each.choices, each.score)
            misses += not low <= each.quality <= high
            total += 1
    assert misses / total < 0.1


def test_the_gradient_of_the_fit_is_that_of_differences():
    seen = world(1.3, [1, 2, 0.5], [0.1, 0.2, 0.15], ceiling=0.8, most=4.0, count=5)
    measured = Measured.of(ArchitectureKernel.of(NUMBERS), seen, None)
    for ceiling in (0.9, np.inf):
        fit = Fit.of(ArchitectureKernel.of(NUMBERS), measured, ceiling)
        at = fit.unknowns + 0.1 * np.random.default_rng(0).normal(size=len(fit.unknowns))
        gradient = fit._foretold(at)[2]
        for column, step in enumerate(1e-6 * np.eye(len(at))):
            wanted = (fit._foretold(at + step)[0] - fit._foretold(at - step)[0]) / 2e-6
            np.testing.assert_allclose(gradient[:, column], wanted, rtol=1e-5, atol=1e-8)


def test_far_below_the_ceiling_the_law_is_a_power_law():
    logs = np.linspace(-12, -8, 5)
    np.testing.assert_allclose(loss_at(logs, 0.1, 0.8, 1e-3)[0], 0.7 * np.exp(logs), rtol=1e-3)


def test_the_kernel_is_a_covariance_and_likes_what_is_alike():
    nets = {
        Choices.from_dict({"depth": depth, **{f"block{at}.kernel": 3 + 2 * (at % 2) for at in range(depth)}}): np.array(
            [float(depth)]
        )
        for depth in range(1, 6)
    }
    kernel = ArchitectureKernel.of(nets)
    assert np.linalg.eigvalsh(kernel.values).min() > 0
    assert np.allclose(kernel.values, kernel.values.T)
    row = kernel.values[0]
    assert row[0] > row[1] > row[4]
    assert np.trace(kernel.values) / 5 == pytest.approx(1.0)


def test_with_the_largest_float_network_alone_everything_is_expected_to_be_like_it():
    found = QualityLaw.fit(NUMBERS, [Seen(NETS[0], 0.0, 0.25, 0.01)])
    assert found.floats[NETS[3]] == pytest.approx(0.25, abs=1e-6)
    assert np.isinf(found.ceiling)


@pytest.mark.parametrize("worst", [1e6, 1e12, 1.7e308])
def test_one_measurement_beyond_all_use_does_not_blind_the_law(worst):
    """Perplexities: a format that destroys the network, and others that lose a little."""
    plain = [(0.0, 20.0), (0.05, 20.5), (0.3, 25.0), (1.0, 80.0)]
    seen = [*(Seen(NETS[0], score, value, 0.5) for score, value in plain), Seen(NETS[0], 6.0, worst, 0.5)]
    found = QualityLaw.fit(NUMBERS, [*seen, Seen(NETS[3], 0.0, 40.0, 0.5)])
    assert found.predict(NETS[0], 0.0) == pytest.approx(20.0, abs=0.5)
    assert found.predict(NETS[0], 0.3) == pytest.approx(25.0, abs=4.0)
    assert found.predict(NETS[0], 1.0) > 40
    assert found.noise < 2.0


@pytest.mark.parametrize("shift", [0.0, 20.0, -1000.0])
def test_the_law_does_not_mind_where_qualities_start(shift):
    seen = [Seen(NETS[0], 0.0, shift, 1e-4)]
    seen += [Seen(NETS[0], score, shift + lost, 1e-4) for score, lost in ((0.01, 0.002), (0.1, 0.005), (1.0, 0.01))]
    found = QualityLaw.fit(NUMBERS, seen)
    assert found.predict(NETS[0], 0.1) - shift == pytest.approx(0.005, abs=0.002)
    if np.isfinite(found.ceiling):
        assert found.predict(NETS[0], 1e9) <= found.ceiling + 1e-9


def test_a_law_needs_a_float_network():
    with pytest.raises(InvalidInput, match="needs a measured float network"):
        QualityLaw.fit(NUMBERS, [Seen(NETS[0], 0.5, 0.3)])
