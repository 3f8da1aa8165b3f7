"""Looking products up: exact hits, the model for the rest, the edges of the table."""

import numpy as np
import pytest
from bitfront.errors import NotMeasured
from bitfront.hw_models.gemm import MeasuredGemms, Prediction
from bitfront.hw_models.gpu.gemm_times import MEASURED_SIGMA, GemmTimes
from hypothesis import given, settings
from hypothesis import strategies as st

SIDES = (32, 64, 128, 4096)


def law(m, n, k):
    return 1e-3 + 1e-12 * (np.asarray(m, dtype=float) * n * k)


def grid(formats=("bf16", "fp8"), device="nvidia-h100-sxm"):
    parts = np.array([(m, n, k) for m in (1, 16, 1024) for n in SIDES for k in SIDES])
    m, n, k = np.tile(parts, (len(formats), 1)).T
    names = np.repeat(np.array(formats), len(parts))
    return MeasuredGemms(np.full(len(m), device), names, m, n, k, law(m, n, k) * np.where(names == "fp8", 0.5, 1.0))


class Model:
    """The law itself, 10 % up and 20 % down, and what it was asked."""

    def __init__(self):
        self.asked = []

    def predict(self, gemms):
        self.asked.append(gemms)
        ms = law(gemms.m, gemms.n, gemms.k)
        return Prediction(ms, 0.8 * ms, 1.1 * ms, 0.9)


def ask(times, *shapes, name="bf16"):
    return times.times(name, *np.array(shapes, dtype=np.int64).T)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([1, 16, 1024]), st.sampled_from(SIDES), st.sampled_from(SIDES)), min_size=1))
def test_every_row_of_the_table_is_found(shapes):
    model = Model()
    found = ask(GemmTimes(grid(), model), *shapes)
    assert found.measured.all()
    assert not model.asked
    assert np.array_equal(found.ms, [law(*shape) for shape in shapes])
    assert np.allclose(found.sigma, MEASURED_SIGMA * found.ms)


def test_what_is_not_in_the_table_is_asked_of_the_model():
    model = Model()
    found = ask(GemmTimes(grid(), model), (16, 64, 64), (17, 64, 64), (16, 64, 100))
    assert found.measured.tolist() == [True, False, False]
    (asked,) = model.asked
    assert (asked.m.tolist(), asked.k.tolist(), set(asked.device), set(asked.format)) == (
        [17, 16],
        [64, 100],
        {"nvidia-h100-sxm"},
        {"bf16"},
    )
    assert found.sigma[1] == pytest.approx(0.2 * found.ms[1] / 1.6448536)  # the longer side of the 90 % interval


def test_narrow_products_are_padded_and_long_ones_cut():
    times = GemmTimes(grid(), Model())
    padded = ask(times, (16, 10, 27))
    assert padded.ms[0] == law(16, 32, 32)
    assert not padded.measured[0]
    cut = ask(times, (3 * 1024, 2 * 4096, 64))
    assert cut.ms[0] == pytest.approx(6 * law(1024, 4096, 64))
    assert not cut.measured[0]
    assert ask(times, (2050, 64, 64)).ms[0] == pytest.approx(3 * law(684, 64, 64))  # three parts of at most 684 rows


def test_a_larger_k_is_left_to_the_model():
    """Also one whose key would run into that of another product."""
    model = Model()
    huge = (1 << 21) + 64
    assert not ask(GemmTimes(grid(), model), (16, 64, huge)).measured[0]
    assert model.asked[0].k.tolist() == [huge]


def test_of_two_measurements_the_last_counts():
    rows = grid(("bf16",))
    twice = MeasuredGemms.joined([rows, MeasuredGemms(rows.device, rows.format, rows.m, rows.n, rows.k, 2 * rows.ms)])
    assert ask(GemmTimes(twice, None), (16, 64, 64)).ms[0] == 2 * law(16, 64, 64)


def test_refusals():
    times = GemmTimes(grid(), None)
    with pytest.raises(NotMeasured, match="no nvfp4 products were measured on nvidia-h100-sxm; it has bf16, fp8"):
        ask(times, (1, 32, 32), name="nvfp4")
    with pytest.raises(NotMeasured, match="bf16 product 17 x 64 x 128 was not measured"):
        ask(times, (17, 128, 64))
    with pytest.raises(NotMeasured, match="empty"):
        GemmTimes(grid().take(np.zeros(0, dtype=np.int64)), None)
    assert times.floor_ms == pytest.approx(0.5 * law(1, 32, 32))
