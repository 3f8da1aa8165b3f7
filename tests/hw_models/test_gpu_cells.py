"""Prices of cells from made-up tables: every term by hand, its source and error; refusals."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from bitfront.errors import NotMeasured
from bitfront.hw_models.devices import device
from bitfront.hw_models.gemm import MeasuredGemms, Prediction
from bitfront.hw_models.gpu import ElementwiseLaw, GemmTimes, GpuTables, assembled
from bitfront.hw_models.gpu.cells import weakest
from bitfront.hw_models.gpu.device_tables import assumed_law
from bitfront.hw_models.roofline import RELATIVE_SIGMA
from bitfront.space import SearchSpace
from torch import nn

FACTOR = {"bf16": 1.0, "fp8": 0.9, "fp8_block": 0.8, "w8a8": 0.6, "int8_wo": 1.2, "int4_wo": 1.5, "fp16": 1.0}
QUANTIZE = ElementwiseLaw(0.0015, 4e9, 2e7, 2e9, 0.03, "a test")
FIND = ElementwiseLaw(0.001, 8e9, 2e7, 4e9, 0.05, "a test")
ELEMENTWISE = ElementwiseLaw(0.002, 5e9, 3e7, 2.5e9, 0.1, "a test")


def law(name, m, n, k):
    return FACTOR[name] * (0.02 + 1e-11 * np.asarray(m, dtype=float) * n * k)


class Model:
    def predict(self, gemms):
        ms = np.array([law(*row) for row in zip(gemms.format, gemms.m, gemms.n, gemms.k, strict=True)])
        return Prediction(ms, 0.9 * ms, 1.1 * ms, 0.9)


def tables(formats=tuple(FACTOR), find=FIND, inside=("fp8", "fp8_block"), model=None):
    sides = (32, 64, 256)
    parts = [(name, m, n, k) for name in formats for m in (1, 24, 512) for n in sides for k in sides]
    names, m, n, k = (np.array(column) for column in zip(*parts, strict=True))
    ms = np.array([law(*row) for row in parts])
    rows = MeasuredGemms(np.full(len(m), "nvidia-h100-sxm"), names, m, n, k, ms)
    return GpuTables(
        device("nvidia-h100-sxm"),
        GemmTimes(rows, model or Model()),
        ELEMENTWISE,
        QUANTIZE,
        find,
        frozenset(inside),
        dict.fromkeys(formats, "made up"),
    )


def space_of(model, example, formats, ties="none"):
    return SearchSpace.from_model(model, example, formats=list(formats), ties=ties)


def cell(table, space, format_name, site=0):
    return table.values[site, space.formats.index(format_name)]


def test_a_table_hit_is_the_price():
    space = space_of(nn.Linear(64, 256), torch.zeros(1, 12, 64), ["w4", "w8", "bf16"])
    table = assembled(space, tables(), batch=2)
    for name, kernel in {"w4": "int4_wo", "w8": "int8_wo", "bf16": "bf16"}.items():
        assert cell(table, space, name) == pytest.approx(law(kernel, 24, 256, 64))
    assert (table.source, table.base) == ("measured", 0.0)
    assert np.allclose(table.sigma, 0.035 * table.values)
    assert "3 measured" in table.provenance


def test_fewer_bits_can_be_slower():
    space = space_of(nn.Linear(64, 256), torch.zeros(1, 24, 64), ["w4", "bf16"])
    prices = assembled(space, tables())
    assert cell(prices, space, "w4") > cell(prices, space, "bf16")


def test_what_is_not_in_the_table_is_predicted():
    space = space_of(nn.Linear(64, 256), torch.zeros(1, 13, 64), ["bf16"])
    table = assembled(space, tables())
    assert table.source == "predicted"
    assert table.values[0, 0] == pytest.approx(law("bf16", 13, 256, 64))
    assert table.sigma[0, 0] == pytest.approx(0.1 * table.values[0, 0] / 1.6448536)


def test_a_static_scale_saves_looking_for_it():
    """fp8 = dynamic product - finding the scale; fp8d is the row itself."""
    space = space_of(nn.Linear(64, 256), torch.zeros(1, 24, 64), ["fp8", "fp8d"])
    table = assembled(space, tables())
    row, moved = law("fp8", 24, 256, 64), np.array([3.0 * 24 * 64])
    assert cell(table, space, "fp8d") == pytest.approx(row)
    saved = float(FIND.ms(moved)[0])
    assert cell(table, space, "fp8") == pytest.approx(row - saved)
    extra = table.sigma[0, space.formats.index("fp8")]
    assert extra == pytest.approx(0.035 * row + FIND.error * saved)


def test_where_the_saving_was_not_measured_static_costs_as_much_as_dynamic():
    space = space_of(nn.Linear(64, 256), torch.zeros(1, 24, 64), ["fp8", "fp8d"])
    table = assembled(space, tables(find=None))
    assert cell(table, space, "fp8") == pytest.approx(cell(table, space, "fp8d"))
    assert "the difference was not measured" in table.provenance


def test_a_kernel_that_gets_codes_pays_for_quantizing():
    space = space_of(nn.Linear(64, 256), torch.zeros(1, 24, 64), ["w8a8", "w8a8d", "bf16"])
    table = assembled(space, tables())
    expected = law("w8a8", 24, 256, 64) + float(QUANTIZE.ms(np.array([3.0 * 24 * 64]))[0])
    assert cell(table, space, "w8a8") == pytest.approx(expected)
    assert cell(table, space, "w8a8d") == pytest.approx(expected)
    assert "quantizing int8 inputs by a test" in table.provenance


def test_no_difference_falls_below_the_roofline():
    greedy = dataclasses.replace(FIND, floor_ms=10.0)
    space = space_of(nn.Linear(64, 256), torch.zeros(1, 24, 64), ["fp8"])
    table = assembled(space, tables(find=greedy))
    moved = 24 * 64 + 256 * 64 + 2 * 24 * 256
    assert table.values[0, 0] == pytest.approx(max(2 * 24 * 256 * 64 / 1979e9, moved / 3350e6))


def test_a_convolution_quantizes_its_input_once_not_per_window():
    space = space_of(nn.Sequential(nn.Conv2d(32, 64, 3, padding=1)), torch.zeros(1, 32, 8, 8), ["fp8", "bf16"])
    table = assembled(space, tables(), batch=8)  # m = 512, n = 64, k = 288: predicted
    product, entering = 512 * 288, 8 * 32 * 64

    def total(elements):
        return float(QUANTIZE.ms(np.array([3.0 * elements]))[0])

    found = float(FIND.ms(np.array([3.0 * product]))[0])
    expected = law("fp8", 512, 64, 288) - found - total(product) + total(entering)
    assert cell(table, space, "fp8") == pytest.approx(expected)
    assert cell(table, space, "bf16") == pytest.approx(law("bf16", 512, 64, 288))
    assert "1 convolutions as implicit GEMM" in table.provenance


@pytest.mark.parametrize("name", ["w4", "w8"])
def test_weight_only_convolutions_are_refused(name):
    space = space_of(nn.Sequential(nn.Conv2d(32, 64, 3)), torch.zeros(1, 32, 8, 8), [name, "bf16"])
    with pytest.raises(NotMeasured, match=rf"format {name}: .* are for matrices, not for the convolution 0; .* bf16"):
        assembled(space, tables())


@pytest.mark.parametrize(
    ("name", "why"),
    [("nvfp4", "was not measured there"), ("w3", "no GPU kernel is known"), ("mxfp4", "no table has its kernel")],
)
def test_formats_without_a_measurement_are_refused(name, why):
    space = space_of(nn.Linear(64, 256), torch.zeros(1, 24, 64), [name, "bf16"])
    with pytest.raises(
        NotMeasured, match=f"format {name} has no price on nvidia-h100-sxm .*{why}.*Measured there: .*bf16"
    ):
        assembled(space, tables())


def test_depthwise_is_a_roofline_and_says_so():
    model = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1, groups=64))
    space = space_of(model, torch.zeros(1, 64, 32, 32), ["bf16"])
    table = assembled(space, tables(), batch=4)
    moved = 64 * 9 * 2 + 2 * 2 * 4 * 64 * 32 * 32
    assert table.values[0, 0] == pytest.approx(float(ELEMENTWISE.ms(np.array([float(moved)]))[0]))
    assert table.source == "model"
    assert table.sigma[0, 0] == pytest.approx(RELATIVE_SIGMA * table.values[0, 0])
    assert "1 grouped convolutions by operations and bytes" in table.provenance


def test_look_ups_move_bytes_in_any_format():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Embedding(1000, 64), nn.Linear(64, 256)

        def forward(self, tokens):
            return self.head(self.table(tokens))

    class Only(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(1000, 64)

        def forward(self, tokens):
            return self.table(tokens)

    space = space_of(Only(), torch.zeros(1, 24, dtype=torch.long), ["w3", "w8", "bf16"])
    table = assembled(space, tables())
    assert table.source == "model"
    assert cell(table, space, "bf16") == pytest.approx(
        float(ELEMENTWISE.ms(np.array([24 * 64 * 2 + 8 * 24 + 24 * 64 * 2.0]))[0])
    )
    with pytest.raises(NotMeasured, match="format w3"):
        assembled(space_of(Model(), torch.zeros(1, 24, dtype=torch.long), ["w3", "bf16"]), tables())


def test_fused_siblings_share_one_product():
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.q_proj, self.k_proj, self.v_proj = nn.Linear(64, 128), nn.Linear(64, 64), nn.Linear(64, 64)

        def forward(self, x):
            return self.q_proj(x)[..., :64] * self.k_proj(x) + self.v_proj(x)

    space = space_of(Heads(), torch.zeros(1, 24, 64), ["bf16"], ties="auto")
    table = assembled(space, tables())
    assert table.values.sum() == pytest.approx(law("bf16", 24, 256, 64))
    widths = np.array([math.prod(site.weight_shape) for site in space.sites])
    assert np.allclose(table.values[:, 0], law("bf16", 24, 256, 64) * widths / widths.sum())
    assert table.source == "measured"


def test_casts_between_floats_are_left_out_and_said_so():
    told = [
        assembled(space_of(nn.Linear(64, 256), torch.zeros(1, 24, 64), names), tables()).provenance
        for names in (["w4", "bf16"], ["w4", "bf16", "fp16"])
    ]
    assert ["casts between" in text for text in told] == [False, True]


def test_the_weakest_source_that_matters_names_the_table():
    ms = np.array([[90.0, 4.0, 6.0, np.nan]])
    assert weakest(ms, np.array([[0, 1, 2, -1]])) == 1  # 10 % are predicted or weaker, 6 % model
    assert weakest(ms, np.array([[0, 0, 2, -1]])) == 0
    assert weakest(ms, np.array([[1, 0, 0, -1]])) == 1


def test_assumed_law():
    found = assumed_law(device("nvidia-a100-sxm-80gb"), 0.0025)
    assert found.ms(np.array([0.0, 2039e6 * 0.8])) == pytest.approx([0.0025, 1.0025])
    assert "assumed" in found.reference


def test_operators_outside_the_sites_are_the_base():
    model = nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 256), nn.Softmax(-1))
    space = space_of(model, torch.zeros(1, 24, 64), ["bf16", "w8"])
    table = assembled(space, tables())
    expected = ELEMENTWISE.ms(np.array([2.0 * 24 * 128, 2.0 * 24 * 512])).sum()
    assert table.base == pytest.approx(expected)
    assert table.source == "model"  # more than a tenth of the whole
    margin = table.total(space.choice(space.uniform("bf16")))
    product = law("bf16", 24, 256, 64)
    assert margin.value == pytest.approx(expected + product)
    assert margin.high - margin.value == pytest.approx(1.959964 * (0.5 * expected + 0.035 * product))
    assert "2 operators outside the sites" in table.provenance
