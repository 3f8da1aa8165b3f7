"""Networks, cells and choices as vectors."""

import numpy as np
import pytest
import torch
from bitfront.errors import InvalidInput, UnsupportedModel
from bitfront.hw_models.architecture import OPERATIONS, encode, encode_cells, encode_choices, parse_cell
from torch import Tensor, nn


def raw(module: nn.Module, *inputs: Tensor) -> dict[str, float]:
    found = encode(module, (inputs, None))
    return dict(zip(found.names, np.expm1(found.values), strict=True))


def test_macs_are_those_of_the_layers() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten()
    )
    found = raw(model, torch.rand(2, 3, 8, 8))
    assert found["convolution mmacs"] == pytest.approx(2 * 8 * 64 * 27 / 1e6)
    assert found["grouped mmacs"] == pytest.approx(2 * 8 * 36 * 9 / 1e6)
    assert (found["convolution operations"], found["grouped operations"]) == (pytest.approx(1), pytest.approx(1))
    assert (found["norm operations"], found["pointwise operations"]) == (pytest.approx(1), pytest.approx(1))
    assert found["pointwise mb"] == pytest.approx(2 * 4 * 2 * 8 * 64 / 1e6)


def test_transposed_convolutions_products_and_look_ups() -> None:
    transposed = raw(nn.ConvTranspose2d(4, 6, 2, stride=2), torch.rand(1, 4, 5, 5))
    assert transposed["convolution mmacs"] == pytest.approx(4 * 25 * 6 * 4 / 1e6)
    model = nn.Sequential(nn.Embedding(50, 16), nn.Linear(16, 8), nn.LayerNorm(8))
    found = raw(model, torch.randint(0, 50, (3, 7)))
    assert found["product mmacs"] == pytest.approx(3 * 7 * 16 * 8 / 1e6)
    assert found["lookup operations"] == pytest.approx(1)
    assert found["norm operations"] == pytest.approx(1)


def test_attention_counts_scores_and_values() -> None:
    class Attention(nn.Module):
        def forward(self, q: Tensor, k: Tensor) -> Tensor:
            return nn.functional.scaled_dot_product_attention(q, k, k)

    found = raw(Attention(), torch.rand(2, 4, 10, 16), torch.rand(2, 4, 30, 16))
    assert found["attention mmacs"] + found["product mmacs"] == pytest.approx(2 * 2 * 4 * 10 * 30 * 16 / 1e6)


def test_larger_networks_and_batches_have_larger_entries_and_the_model_is_as_before() -> None:
    small = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)).train()
    large = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 2))
    one, two, three = encode(small, torch.rand(2, 8)), encode(large, torch.rand(2, 8)), encode(small, torch.rand(9, 8))
    assert small.training
    assert small[0].training
    assert (two.values >= one.values).all()
    assert (three.values >= one.values).all()
    assert two.names == one.names
    assert (two.values[-3:] > one.values[-3:]).all()


def test_roofline_entries_are_between_bytes_and_operations() -> None:
    found = raw(nn.Linear(100, 100, bias=False), torch.rand(1, 100))
    moved = 4 * (100 + 10_000 + 100) / 1e6
    assert found["roofline at 10 macs per byte"] == pytest.approx(moved)
    found = raw(nn.Linear(100, 100, bias=False), torch.rand(100_000, 100))
    assert found["roofline at 1 macs per byte"] == pytest.approx(1e9 / 1e6)


def test_a_network_that_fails_is_told_in_one_line() -> None:
    with pytest.raises(UnsupportedModel, match=r"^Linear failed on the example inputs: [^\n]*$"):
        encode(nn.Linear(3, 2), torch.rand(2, 5))


def test_cells() -> None:
    cell = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|none~0|none~1|nor_conv_3x3~2|"
    assert [OPERATIONS[each] for each in parse_cell(cell)] == [
        *("avg_pool_3x3", "nor_conv_1x1", "skip_connect", "none", "none", "nor_conv_3x3")
    ]
    row = encode_cells([cell])[0]
    assert row.shape == (41,)
    assert row[:30].reshape(6, 5).argmax(1).tolist() == list(parse_cell(cell))
    assert row[30:35].tolist() == [2, 1, 1, 1, 1]
    assert row[35:40].tolist() == [0, 1, 1, 1, 1]  # all that is not "none" lies on a path
    assert row[40] == 2  # 1x1, then 3x3
    cut = encode_cells(["|none~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"])[0]
    assert cut[35:].tolist() == [0, 1, 0, 0, 0, 0]  # only the skip leads from input to output
    pairs = encode_cells([cell], pairs=True)[0]
    assert pairs.shape == (416,)
    assert pairs[41:].sum() == 15  # one product for each pair of edges


@pytest.mark.parametrize("cell", ["", "|max_pool~0|+|none~0|none~1|+|none~0|none~1|none~2|", "|none~0|+|none~0|"])
def test_what_is_no_cell_is_refused(cell: str) -> None:
    with pytest.raises(InvalidInput, match="is no NAS-Bench-201 cell"):
        parse_cell(cell)


def test_choices_one_hot_and_out_of_range() -> None:
    found = encode_choices([2, 3], np.array([[0, 2], [1, 0]]))
    assert found.tolist() == [[1, 0, 0, 0, 1], [0, 1, 1, 0, 0]]
    with pytest.raises(InvalidInput, match="out of range"):
        encode_choices([2, 3], np.array([[0, 3]]))
    with pytest.raises(InvalidInput, match=r"give \[architectures, 2\]"):
        encode_choices([2, 3], np.array([[0, 1, 1]]))
