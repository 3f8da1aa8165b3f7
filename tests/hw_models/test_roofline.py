"""Rooflines of named devices: closed forms, refusals, the list of devices."""

import json
from pathlib import Path

import bitfront.hw_models
import numpy as np
import pytest
import torch
from bitfront.errors import NotMeasured
from bitfront.formats import Format
from bitfront.hw_models import device, devices, planned, price
from bitfront.hw_models.roofline import RELATIVE_SIGMA, bytes_moved, compute_type, roofline_seconds
from bitfront.space import SearchSpace
from torch import nn


def linear(tokens, inputs, outputs, formats):
    model = nn.Linear(inputs, outputs)
    return SearchSpace.from_model(model, torch.zeros(1, tokens, inputs), formats=formats)


def test_memory_bound_closed_form():
    space = linear(1, 4096, 4096, ["w4", "w8a8", "bf16"])
    h100, site = device("nvidia-h100-sxm"), space.sites[0]
    n = 4096
    expected = {
        "w4": n * n / 2 + 4 * n + 2 * n + 2 * n,
        "w8a8": n * n + 4 * n + n + 2 * n,
        "bf16": 2 * n * n + 2 * n + 2 * n,
    }
    for name, size in expected.items():
        assert roofline_seconds(site, Format.parse(name), h100) == pytest.approx(size / 3350e9)


def test_scales_are_moved_too():
    space = linear(4, 4096, 4096, ["w4g128", "w4g128z", "fp8d", "fp8b128", "mxfp4", "nvfp4", "mxfp6"])
    b200, site = device("nvidia-b200"), space.sites[0]
    n, out = 4096, 2 * 4 * 4096
    expected = {
        "w4g128": n * n / 2 + n * n / 128 * 2 + 2 * 4 * n + out,
        "w4g128z": n * n / 2 + n * n / 128 * 2.5 + 2 * 4 * n + out,
        "fp8d": n * n + 4 * n + 4 * n + 4 * 4 + out,
        "fp8b128": n * n + 4 * (n / 128) ** 2 + 4 * n + 4 * 4 * n / 128 + out,
        "mxfp4": n * n / 2 + n * n / 32 + 4 * n / 2 + 4 * n / 32 + out,
        "nvfp4": n * n / 2 + n * n / 16 + 4 + 4 * n / 2 + 4 * n / 16 + out,
        "mxfp6": n * n * 6 / 8 + n * n / 32 + 4 * n * 6 / 8 + 4 * n / 32 + out,
    }
    for name, size in expected.items():
        kind = compute_type(Format.parse(name), b200)
        assert bytes_moved(site, Format.parse(name), kind) == pytest.approx(size), name


def test_compute_bound_closed_form():
    space = linear(64, 1024, 1024, ["w4", "w8a8", "bf16", "fp32"])
    site, batch, operations = space.sites[0], 256, 2 * 256 * 64 * 1024**2
    h100 = device("nvidia-h100-sxm")
    for name, peak in {"w4": 989.5e12, "w8a8": 1979e12, "bf16": 989.5e12, "fp32": 67e12}.items():
        assert roofline_seconds(site, Format.parse(name), h100, batch) == pytest.approx(operations / peak)


def test_batch_scales_activations_but_not_the_weight():
    model = nn.Sequential(nn.Conv2d(4, 4, 1))
    space = SearchSpace.from_model(model, torch.zeros(1, 4, 8, 8), formats=["bf16"])
    a10 = device("nvidia-a10")
    one, ten = (roofline_seconds(space.sites[0], Format.parse("bf16"), a10, batch) for batch in (1, 10))
    weight, activations = 16 * 2, 4 * 64 * 2 * 2
    assert one == pytest.approx((weight + activations) / 600e9)
    assert ten == pytest.approx((weight + 10 * activations) / 600e9)


def test_an_embedding_reads_only_its_rows():
    space = SearchSpace.from_model(nn.Embedding(10**5, 64), torch.zeros(1, 3, dtype=torch.long), formats=["w8"])
    assert roofline_seconds(space.sites[0], Format.parse("w8"), device("nvidia-l4")) < 1e-8


def test_label_and_interval():
    space = linear(1, 64, 64, ["w4", "bf16"])
    prices = price(space, device="nvidia-h200-sxm", runtime="roofline")
    table = prices["latency_ms"]
    assert (table.source, table.base) == ("roofline", 0.0)
    assert "roofline, not measured" in table.provenance
    assert np.allclose(table.sigma, RELATIVE_SIGMA * table.values)
    total = prices.of(space.uniform("w4"))["latency_ms"]
    assert total.source == "roofline"
    assert total.low == total.value
    assert total.high == pytest.approx(total.value * (1 + 1.959964 * RELATIVE_SIGMA))
    assert len(prices.measured) == 0
    assert planned(space, device="nvidia-h200-sxm") == 0


@pytest.mark.parametrize(
    ("name", "format_name", "kind"),
    [
        ("nvidia-t4", "w4", "fp16"),
        ("nvidia-t4", "w4a4", "int4"),
        ("nvidia-t4", "w4a8", "int8"),
        ("nvidia-a100-sxm-80gb", "w8", "bf16"),
        ("nvidia-a100-sxm-80gb", "fp16", "fp16"),
        ("nvidia-a100-sxm-80gb", "nf4", "bf16"),
        ("nvidia-a100-sxm-80gb", "we4m3", "bf16"),
        ("nvidia-a100-sxm-80gb", "wnvfp4", "bf16"),
        ("nvidia-a100-sxm-80gb", "w8a8d", "int8"),
        ("nvidia-a10", "w4g128a4d", "int4"),
        ("nvidia-h100-sxm", "fp8", "fp8"),
        ("nvidia-h100-sxm", "fp8d", "fp8"),
        ("nvidia-h100-sxm", "fp8b128", "fp8"),
        ("nvidia-h100-sxm", "we5m2ae5m2", "fp8"),
        ("nvidia-h100-sxm", "w4g128ae4m3d", "fp8"),
        ("nvidia-h100-sxm", "we2m1ae4m3", "fp8"),
        ("nvidia-b200", "mxfp8", "fp8"),
        ("nvidia-b200", "mxfp6", "fp6"),
        ("nvidia-b200", "wmxfp4amxfp6", "fp6"),
        ("nvidia-b200", "wmxfp4amxfp8", "fp8"),
        ("nvidia-b200", "mxfp4", "fp4"),
        ("nvidia-b200", "nvfp4", "fp4"),
    ],
)
def test_compute_type(name, format_name, kind):
    assert compute_type(Format.parse(format_name), device(name)) == kind


@pytest.mark.parametrize(
    ("name", "format_name"),
    [
        ("nvidia-h100-sxm", "w4a4"),
        ("nvidia-t4", "bf16"),
        ("nvidia-v100-sxm2", "w8a8"),
        ("nvidia-a10", "w8a4"),
        ("nvidia-a10", "w4a6"),
        ("nvidia-a100-sxm-80gb", "fp8"),
        ("nvidia-h100-sxm", "mxfp8"),  # fp8, but no scales of blocks in its tensor cores
        ("nvidia-h100-sxm", "nvfp4"),
        ("nvidia-h100-sxm", "w8ae4m3"),  # e4m3 does not hold 8-bit integers
        ("nvidia-b200", "we4m3a8"),
        ("nvidia-b200", "w8a8c"),
        ("nvidia-b200", "wnvfp4amxfp4"),
    ],
)
def test_a_missing_kernel_is_refused(name, format_name):
    space = linear(1, 128, 128, [format_name])
    with pytest.raises(NotMeasured, match=f"{format_name} has no kernel on {name}"):
        price(space, device=name, runtime="roofline")


def test_devices_are_listed_with_their_reference():
    frame = devices()
    assert frame["device"].is_unique
    assert frame.loc[frame["device"] == "cpu", "latency"].item() == "measured"
    gpus = frame[frame["device"] != "cpu"]
    assert set(gpus["latency"]) <= {"measured", "roofline"}
    assert gpus["reference"].str.contains("NVIDIA").all()
    assert (gpus["bandwidth_gb_s"] > 0).all()
    content = json.loads((Path(bitfront.hw_models.__file__).parent / "devices.json").read_text())
    kinds = {kind for entry in content["devices"].values() for kind in entry["peak_tera"]}
    assert kinds <= set(frame.columns)
