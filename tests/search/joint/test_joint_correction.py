"""The foretold quality of genomes: the law, the corrections of architectures, intervals."""

import numpy as np
import pytest
from bitfront.architecture import Choices
from bitfront.search.joint import Correction, Seen
from hypothesis import given, settings
from hypothesis import strategies as st

NETS = [Choices((("depth", depth),)) for depth in range(4)]


def world(scale, power, factors, floats, noise=0.0, seed=0, count=12):
    """Measured genomes of a world in which the model is true, up to relative noise of the losses."""
    draw = np.random.default_rng(seed)
    seen = [Seen(net, 0.0, value) for net, value in zip(NETS, floats, strict=False)]
    for net, value, factor in zip(NETS, floats, factors, strict=False):
        for score in np.geomspace(1e-3, 1.0, count):
            lost = factor * scale * score**power * np.exp(noise * draw.normal())
            seen.append(Seen(net, float(score), value + lost))
    return seen


def test_a_true_law_is_found_again():
    floats = [0.1, 0.2]
    found = Correction.fit(dict(zip(NETS, floats, strict=False)), world(0.5, 1.3, [1, 1], floats))
    assert found.law is not None
    assert found.law.slope == pytest.approx(1.3)
    assert found.predict(NETS[1], 0.5) == pytest.approx(0.2 + 0.5 * 0.5**1.3)
    assert found.predict(NETS[0], 0.0) == 0.1
    assert not found.offsets
    assert found.relative == pytest.approx(0, abs=1e-9)


def test_an_architecture_that_loses_more_than_others_is_foretold_to():
    floats, factors = [0.1, 0.1, 0.1], [1.0, 4.0, 1.0]
    found = Correction.fit(dict(zip(NETS, floats, strict=False)), world(0.5, 1.0, factors, floats))
    assert found.factors[NETS[1]] / found.factors[NETS[0]] == pytest.approx(4.0, rel=0.25)  # shrunk by 12/13
    true = 0.1 + 4 * 0.5 * 0.3
    plain = 0.1 + float(found.losses(NETS[3], np.array([0.3]))[0])  # never measured: the law alone
    assert abs(found.predict(NETS[1], 0.3) - true) < 0.3 * abs(plain - true)


def test_an_offset_mends_foretold_float_networks_and_leaves_measured_ones():
    told = {NETS[0]: 0.1, NETS[1]: 0.4}  # the second one's truth is 0.2
    seen = [each for each in world(0.5, 1.0, [1, 1], [0.1, 0.2]) if each.score > 0 or each.choices == NETS[0]]
    found = Correction.fit(told, seen)
    assert set(found.offsets) == {NETS[1]}
    assert found.predict(NETS[1], 0.001) == pytest.approx(0.2, abs=0.03)
    assert found.predict(NETS[0], 0.0) == 0.1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.floats(0, 2), st.floats(-0.5, 3)), max_size=25),
    st.lists(st.floats(1e-6, 10), min_size=2, max_size=8, unique=True),
)
def test_the_order_of_an_architectures_own_points_never_changes(measured, scores):
    seen = [Seen(NETS[index], score, quality) for index, score, quality in measured]
    found = Correction.fit(dict.fromkeys(NETS, 0.3), seen)
    ordered = np.sort(np.array(scores))
    for net in NETS:
        values = found.qualities(net, ordered)
        assert np.isfinite(values).all()
        assert (np.diff(values) >= 0).all()
        low, high = found.interval(net, float(ordered[0]))
        assert low <= values[0] <= high


def test_intervals_cover():
    floats, factors, misses, total = [0.1, 0.2, 0.15], [1.0, 2.0, 0.6], 0, 0
    for seed in range(20):
        seen = world(0.5, 1.1, factors, floats, noise=0.3, seed=seed)
        found = Correction.fit(dict(zip(NETS, floats, strict=False)), seen)
        fresh = [each for each in world(0.5, 1.1, factors, floats, noise=0.3, seed=100 + seed) if each.score > 0]
        for each in fresh:
            low, high = found.interval(each.choices, each.score)
            misses += not low <= each.quality <= high
            total += 1
    assert misses / total < 0.1


def test_with_nothing_measured_the_score_is_the_loss():
    found = Correction.fit({NETS[0]: 0.25}, [Seen(NETS[0], 0.0, 0.25)])
    assert found.law is None
    assert found.predict(NETS[0], 0.5) == 0.75
