"""Which weights share a scale."""

import pytest
import torch
from bitfront.evaluators.quantizers import Layout, as_groups, from_groups
from bitfront.formats import TensorFormat
from hypothesis import given
from hypothesis import strategies as st

SPREADS = st.sampled_from([("tensor", 0), ("channel", 0), ("group", 3), ("group", 16), ("block", 2), ("block", 5)])
SHAPES = st.lists(st.integers(1, 9), min_size=2, max_size=4)


def layout_of(shape, axis, spread):
    return Layout.of(torch.empty(shape), TensorFormat("int", 4, spread[0], group=spread[1]), axis)


@given(SHAPES, st.integers(0, 1), SPREADS)
def test_rows_hold_every_weight_once_and_come_back(shape, axis, spread):
    weight = torch.arange(1.0, torch.Size(shape).numel() + 1).reshape(shape)
    layout = layout_of(shape, axis, spread)
    rows = layout.rows(weight)
    assert rows.shape[0] == torch.Size(layout.scale_shape).numel()
    assert rows[rows > 0].sort().values.tolist() == weight.flatten().tolist()  # zeros fill up short groups
    assert torch.equal(layout.from_rows(rows), weight)
    assert torch.equal(layout.tensor(layout.matrix(weight)), weight)


@given(SHAPES, st.integers(0, 1), SPREADS)
def test_expand_gives_each_weight_the_number_of_its_row(shape, axis, spread):
    layout = layout_of(shape, axis, spread)
    weight = torch.arange(1.0, torch.Size(shape).numel() + 1).reshape(shape)
    numbers = torch.arange(1.0, torch.Size(layout.scale_shape).numel() + 1)
    expanded = layout.expand(numbers) * torch.ones(layout.matrix_shape)
    rows = layout.rows(weight)
    for position, value in zip(expanded.flatten().tolist(), layout.matrix(weight).flatten().tolist(), strict=True):
        assert value in rows[int(position) - 1]


@given(SHAPES, st.integers(0, 1), SPREADS)
def test_as_many_scales_as_the_format_counts(shape, axis, spread):
    layout = layout_of(shape, axis, spread)
    assert torch.Size(layout.scale_shape).numel() == layout.target.scales(shape, axis)


def test_shapes_by_hand():
    weight = torch.arange(24.0).reshape(4, 6)
    assert layout_of((4, 6), 0, ("group", 4)).rows(weight)[:3].tolist() == [
        [0, 1, 2, 3], [4, 5, 0, 0], [6, 7, 8, 9],
    ]  # fmt: skip
    assert layout_of((4, 6), 1, ("channel", 0)).rows(weight)[1].tolist() == [1, 7, 13, 19]
    assert layout_of((4, 6), 0, ("block", 3)).rows(weight)[1].tolist() == [3, 4, 5, 9, 10, 11, 15, 16, 17]
    assert layout_of((4, 6), 0, ("block", 3)).scale_shape == (2, 2)
    assert layout_of((4, 6, 1, 1), 0, ("tensor", 0)).scale_shape == (1,)


@pytest.mark.parametrize("features", [1, 5, 16, 33])
def test_groups_of_activations_come_back(features):
    value = torch.randn(2, 3, features)
    groups = as_groups(value, 16)
    assert groups.shape == (2, 3, -(-features // 16), 16)
    assert torch.equal(from_groups(groups, features), value)
    assert int((groups != 0).sum()) <= value.numel()
