"""The energy model: its published figures, what it refuses, its interval."""

import pytest
import torch
from bitfront.errors import NotMeasured
from bitfront.formats import Format
from bitfront.hw_models import price
from bitfront.hw_models.energy import mac_picojoules
from bitfront.space import SearchSpace
from torch import nn


def space_of(*formats: str, bits: torch.dtype = torch.float32) -> SearchSpace:
    model = nn.Sequential(nn.Linear(64, 64, False), nn.ReLU(), nn.Linear(64, 64, False)).to(bits)
    return SearchSpace.from_model(model, torch.rand(1, 64, dtype=bits), formats=list(formats))


@pytest.mark.parametrize(
    ("name", "picojoules"),
    [
        ("w8a8", 0.2 + 0.1),
        ("w4a8", 0.1 + 0.1),
        ("w4a4d", 0.05 + 0.1),
        ("bf16", 1.1 + 0.9),
        ("fp32", 3.7 + 0.9),
        ("w4", 3.7 + 0.9),
    ],
)
def test_arithmetic_costs_what_is_published(name: str, picojoules: float) -> None:
    assert mac_picojoules(space_of(name).sites[0], Format.parse(name)) == pytest.approx(picojoules)


def test_weight_only_formats_compute_in_the_float_type_of_the_model() -> None:
    site = space_of("w4", bits=torch.bfloat16).sites[0]
    assert mac_picojoules(site, Format.parse("w4")) == pytest.approx(2.0)


def test_total_is_arithmetic_and_dram() -> None:
    space = space_of("w8a8", "fp32")
    prices = price(space, batch=3, metrics=["energy_mj", "traffic_mb"])
    for name, each in (("w8a8", 0.3), ("fp32", 4.6)):
        total = prices.of(space.uniform(name))
        moved = total["traffic_mb"].value * 1e6 / 8  # words of 64 bits
        arithmetic = 2 * 64 * 64 * 3 * each
        assert total["energy_mj"].value == pytest.approx(1e-9 * (arithmetic + 1950 * moved))
        assert total["energy_mj"].low == pytest.approx(1e-9 * (arithmetic + 1300 * moved), rel=1e-6)
        assert total["energy_mj"].high == pytest.approx(1e-9 * (arithmetic + 2600 * moved), rel=1e-6)
        assert total["energy_mj"].source == "model"
    assert "Horowitz" in prices["energy_mj"].provenance


def test_arithmetic_without_a_figure_is_refused() -> None:
    with pytest.raises(NotMeasured, match=r"format fp8: no energy [^\n]* offer"):
        price(space_of("fp8", "fp32"), metrics=["energy_mj"])
