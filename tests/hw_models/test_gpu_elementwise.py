"""The law of element-wise kernels: recovered from data that follows it, refused where it cannot be fitted."""

import numpy as np
import pytest
from bitfront.errors import InvalidInput
from bitfront.hw_models.gpu.elementwise import ElementwiseLaw, fit_law

TRUE = ElementwiseLaw(0.002, 5e9, 3e7, 2.5e9, 0.0, "made up")


def test_closed_form():
    moved = np.array([0.0, 3e7, 5.5e7])
    assert TRUE.ms(moved) == pytest.approx([0.002, 0.002 + 0.006, 0.002 + 0.006 + 0.01])


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_the_law_behind_the_data_is_found(noise):
    rng = np.random.default_rng(0)
    moved = np.exp(rng.uniform(np.log(1e3), np.log(1e9), 400))
    ms = TRUE.ms(moved) * np.exp(noise * rng.standard_normal(400))
    found = fit_law(moved, ms, "test")
    assert found.error == pytest.approx(noise * np.sqrt(2 / np.pi), abs=0.01)
    for size in (1e4, 1e6, 1e7, 1e8, 9e8):
        assert found.ms(np.array([size]))[0] == pytest.approx(TRUE.ms(np.array([size]))[0], rel=0.02 + noise / 2)


def test_time_never_falls_with_size():
    sizes = np.geomspace(1, 1e12, 200)
    assert (np.diff(TRUE.ms(sizes)) > 0).all()


@pytest.mark.parametrize("ms", [np.ones(7), np.array([1.0] * 8 + [0.0])])
def test_too_little_or_bad_data_is_refused(ms):
    with pytest.raises(InvalidInput, match="at least 8 positive times"):
        fit_law(np.arange(1.0, len(ms) + 1), ms, "test")
