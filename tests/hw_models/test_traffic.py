"""Bytes read and written, by hand and for sites that share a tensor."""

import numpy as np
import pytest
import torch
from bitfront.hw_models import price
from bitfront.space import SearchSpace
from torch import Tensor, nn

METRICS = ["weight_traffic_mb", "traffic_mb"]


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right = nn.Linear(6, 8, False), nn.Linear(8, 4, False), nn.Linear(8, 4, False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return torch.cat([self.left(x), self.right(x)], 1)


def test_weights_are_read_once_however_large_the_batch_and_activations_with_every_sample() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    space = SearchSpace.from_model(model, torch.rand(2, 6), formats=["w8a8", "fp32"])
    for batch in (1, 3):
        prices = price(space, batch=batch, metrics=METRICS)
        total = prices.of(space.uniform("fp32"))
        weights = 4 * (48 + 8 + 32 + 4) / 1e6
        assert total["weight_traffic_mb"].value == pytest.approx(weights)
        # input read; hidden written and read; output written
        assert total["traffic_mb"].value == pytest.approx(weights + 4 * batch * (6 + 2 * 8 + 4) / 1e6)
        narrow = prices.of(space.uniform("w8a8"))["traffic_mb"].value
        codes = (48 + 32 + 4 * (8 + 4) + 4 * (8 + 4)) / 1e6  # with float32 scales and biases
        assert narrow == pytest.approx(codes + batch * (6 + 2 * 8 + 4 * 4) / 1e6)
        assert total["traffic_mb"].source == "exact"


def test_a_shared_tensor_is_written_once_in_each_form() -> None:
    space = SearchSpace.from_model(Shared(), torch.rand(1, 6), formats=["w8a8", "fp32"], ties="none")
    table = price(space, metrics=["traffic_mb"])["traffic_mb"]
    narrow, wide = (space.formats.index(name) for name in ("w8a8", "fp32"))

    def additive(choice: list[int]) -> float:
        return table.base + float(table.values[np.arange(3), choice].sum())

    for column in (narrow, wide):
        choice = [wide, column, column]
        assert additive(choice) == pytest.approx(table.total(np.array(choice)).value)
    mixed = [wide, narrow, wide]
    weights = 4 * (48 + 32) + 32 + 4 * 4
    moved = 4 * 6 + (8 + 8) + (32 + 32) + 2 * (16 + 16) + 32  # input; two forms of x; left, right; the result
    assert table.total(np.array(mixed)).value == pytest.approx((weights + moved) / 1e6)
    assert additive(mixed) < table.total(np.array(mixed)).value


def test_look_ups_read_the_rows_that_they_return() -> None:
    model = nn.Sequential(nn.Embedding(1000, 16), nn.Flatten(), nn.Linear(48, 2))
    space = SearchSpace.from_model(model, torch.randint(0, 1000, (2, 3)), formats=["w8", "fp32"])
    for batch in (1, 4):
        table = price(space, batch=batch, metrics=["weight_traffic_mb"])["weight_traffic_mb"]
        assert table.values[0, space.formats.index("fp32")] == pytest.approx(4 * batch * 3 * 16 / 1e6)
        assert table.values[0, space.formats.index("w8")] == pytest.approx(batch * 3 * (16 + 4) / 1e6)
