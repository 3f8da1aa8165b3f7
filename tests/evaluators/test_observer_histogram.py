"""The histogram that grows: against a histogram that knew the final range, in any order of the data."""

import numpy as np
import pytest
import torch
from bitfront.evaluators.observers import Histogram
from bitfront.evaluators.observers.protocol import extremes
from hypothesis import given, settings
from hypothesis import strategies as st


def filled(*tensors):
    histogram = Histogram(tensors[0].shape[1])
    for tensor in tensors:
        histogram.add(tensor, extremes(tensor))
    return histogram


def reference(value, bins):
    """Counts of one column: half-open bins over [-2^e, 2^e), in float64."""
    value = value.double().numpy()
    top = 2.0 ** np.frexp(np.abs(value).max())[1]
    index = np.floor(value / (2 * top / bins)).astype(int) + bins // 2
    return np.bincount(index, minlength=bins), 2 * top / bins


@settings(max_examples=40, deadline=None)
@given(
    magnitudes=st.lists(st.floats(-60, 60), min_size=1, max_size=5),
    columns=st.sampled_from([1, 3, 300]),
    seed=st.integers(0, 2**31 - 1),
)
def test_counts_are_those_of_the_final_range_in_any_order(magnitudes, columns, seed):
    generator = torch.Generator().manual_seed(seed)
    tensors = []
    for magnitude in magnitudes:
        tensor = torch.randn(50, columns, generator=generator)
        tensors.append(torch.where(tensor.abs() < 0.3, 0, tensor) * 2.0**magnitude)
    one, other = filled(*tensors), filled(*reversed(tensors))
    assert torch.equal(one.counts, other.counts)
    assert torch.equal(one.width, other.width)
    whole = torch.cat(tensors)
    assert torch.equal(one.zeros, (whole == 0).sum(0))
    assert torch.equal(torch.stack([*one.extremes]), torch.stack([whole.amin(0), whole.amax(0)]))
    for column in range(0, columns, 37):
        counts, width = reference(whole[:, column], one.bins)
        assert np.array_equal(one.counts[column].numpy(), counts)
        assert float(one.width[column]) == width


@pytest.mark.parametrize(("columns", "bins"), [(1, 1 << 14), (64, 1 << 14), (384, 1 << 11), (3072, 1 << 10)])
def test_memory_is_bounded_whatever_the_data(columns, bins):
    histogram = Histogram(columns)
    for magnitude in (1e-30, 1.0, 1e30):
        histogram.add(*(lambda value: (value, extremes(value)))(torch.full((7, columns), magnitude)))
    assert histogram.counts.shape == (columns, bins)
    assert bool((histogram.counts.sum(1) == 21).all())


@pytest.mark.parametrize("value", [3.4e38, -3.4e38, 2.0**127, 1.0, -1.0, 1e-38, 1e-45])
def test_the_ends_of_float32(value):
    tensor = torch.tensor([[value], [0.0]])
    histogram = filled(tensor)
    assert int(histogram.counts.sum()) == 2
    points, counts = histogram.points()
    assert counts.sum() == 1
    assert float(points) == pytest.approx(value, rel=1e-3, abs=1e-30)


def test_zeros_leave_the_bins_as_fine_as_they_are():
    """An all-zero batch, and a feature that is dead in it, must not widen bins to [-1, 1)."""
    small = torch.tensor([[3e-7, 0.0], [-1e-7, 0.0]])
    dead = torch.zeros(5, 2)
    alone, later, first = filled(small), filled(small, dead), filled(dead, small)
    assert float(alone.width[0]) == 2.0**-21 / (alone.bins / 2)
    for histogram in (later, first):
        assert torch.equal(histogram.width, alone.width)
        assert torch.equal(histogram.zeros, torch.tensor([5, 7]))
        assert all(torch.equal(one, other) for one, other in zip(histogram.points(), alone.points(), strict=True))
    assert torch.equal(filled(dead).width, Histogram(2).width)
    assert filled(dead).quantile(1.0).tolist() == [0.0, 0.0]
    one = filled(torch.zeros(4, 1), small[:, :1])
    assert torch.equal(one.width, alone.width[:1])


def test_many_values_are_counted_in_chunks():
    torch.manual_seed(0)
    for shape in ((200_001, 1), (1_003, 200)):
        value = torch.randn(shape)
        histogram = filled(value)
        assert bool((histogram.counts.sum(1) == shape[0]).all())
        assert np.array_equal(histogram.counts[0].numpy(), reference(value[:, 0], histogram.bins)[0])


def test_points_stand_for_the_values_without_exact_zeros():
    torch.manual_seed(1)
    value = torch.randn(5000, 1).relu()
    histogram = filled(value)
    for merge in (1, 4):
        points, counts = histogram.points(merge)
        assert bool((points[1:] > points[:-1]).all())
        assert counts.sum() == (value > 0).sum()
        assert bool((counts > 0).all())
        mean = float((points * counts).sum() / counts.sum())
        assert mean == pytest.approx(float(value[value > 0].mean()), abs=merge * float(histogram.width))
        assert 0 < float(points.min()) <= float(points.max()) <= float(value.max())


@pytest.mark.parametrize("magnitude", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.25, 0.5, 0.9, 0.999, 1.0])
def test_quantiles_to_the_width_of_a_bin(share, magnitude):
    torch.manual_seed(2)
    value = torch.randn(20_000, 3) * torch.tensor([1.0, 10.0, 0.01]) + torch.tensor([0.0, -30.0, 0.02])
    histogram = filled(*value.split(3000))
    found = histogram.quantile(share, magnitude)
    values = (value.abs() if magnitude else value).double().numpy()
    # order statistics on both sides, since definitions of a quantile differ by one of them
    rank = share * len(values)
    ordered = np.sort(values, 0)
    low, high = (ordered[int(np.clip(at, 0, len(values) - 1))] for at in (np.floor(rank) - 1, np.ceil(rank)))
    width = histogram.width.numpy()
    assert (found.numpy() >= low - width).all()
    assert (found.numpy() <= high + width).all()


def test_quantiles_among_zeros_are_zero():
    value = torch.cat([torch.zeros(98, 1), torch.tensor([[-1.0], [1.0]])])
    histogram = filled(value)
    assert float(histogram.quantile(0.5)) == 0
    assert float(histogram.quantile(0.5, magnitude=True)) == 0
    assert float(histogram.quantile(0.995)) == pytest.approx(1, rel=1e-3)
    assert float(histogram.quantile(0.005)) == pytest.approx(-1, rel=1e-3)
