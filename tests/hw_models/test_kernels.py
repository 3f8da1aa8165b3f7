"""The measured kernels are what they claim to be: the right operators run, and they compute the right numbers."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

pytest.importorskip("onnxruntime")

from bitfront.errors import NotMeasured
from bitfront.evaluators.quantizers import ActivationQuantizer
from bitfront.hw_models import price, site_kernel
from bitfront.hw_models.cpu_kernels import layer_data
from bitfront.hw_models.onnx_runner import STEPS, OnnxRuntimeRunner
from bitfront.hw_models.onnx_session import load
from bitfront.space import SearchSpace

LAYERS = {
    "linear-2d": (nn.Linear(32, 24), (3, 32)),
    "linear-3d": (nn.Linear(32, 24), (2, 5, 32)),
    "linear-without-bias": (nn.Linear(32, 24, bias=False), (2, 5, 32)),
    "conv1d": (nn.Conv1d(8, 16, 3, padding=1), (1, 8, 12)),
    "conv2d": (nn.Conv2d(8, 16, 3, stride=2, padding=1), (1, 8, 9, 9)),
    "depthwise": (nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), (1, 16, 8, 8)),
    "dilated": (nn.Conv2d(8, 8, 3, padding="same", dilation=2), (1, 8, 9, 9)),
    "conv3d": (nn.Conv3d(4, 8, 3), (1, 4, 5, 5, 5)),
    "transposed": (nn.ConvTranspose2d(8, 6, 3, stride=2, padding=1, output_padding=1), (1, 8, 5, 5)),
    "transposed-groups": (nn.ConvTranspose1d(8, 6, 4, groups=2), (1, 8, 6)),
}
FLOAT_ONLY = {"transposed", "transposed-groups"}  # onnxruntime has no integer kernel for them


def site_of(layer, shape, *formats):
    x = torch.zeros(shape) if not isinstance(layer, nn.Embedding) else torch.zeros(shape, dtype=torch.long)
    return SearchSpace.from_model(nn.Sequential(layer), x, formats=list(formats)).sites[0]


def reference(layer, kernel, data, stored):
    """What torch computes with the stored weight and the rounded input."""
    weight = torch.tensor(data.weight)
    if stored == "bf16":
        weight = weight.bfloat16().float()
    elif stored != "fp32":
        shape = [-1 if axis == kernel.channel_axis else 1 for axis in range(weight.ndim)]
        weight = torch.tensor(data.codes).float() * torch.tensor(data.scale).reshape(shape)
    x = torch.tensor(data.x)
    if kernel.activation_format == "uint8":
        x = ActivationQuantizer(float(np.float32(data.x_scale)), 128, 8)(x)
    if kernel.activation_format == "bf16":
        x = x.bfloat16().float()
    if kernel.activation_format == "fp16":
        x = x.half().float()
    parameters = {"weight": weight} | ({"bias": torch.tensor(data.bias)} if data.bias is not None else {})
    with torch.no_grad():
        y = torch.func.functional_call(layer, parameters, (x,))
    if kernel.weight_format == "int8" and kernel.op == "Conv":
        y = ActivationQuantizer(float(np.float32(data.y_scale)), 128, 8)(y)
    return y.numpy()


def run(kernel, data):
    loaded = load(kernel, data, profiled=True)
    loaded.run()
    return loaded.y, loaded.profile(kernel)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(
    ("format_name", "stored"), [("fp32", "fp32"), ("w4", "int4"), ("bf16", "bf16"), ("fp16", "fp32"), ("w8za8", "fp32")]
)
def test_float_kernels_compute_the_layer(name, format_name, stored):
    layer, shape = LAYERS[name]
    kernel = site_kernel(site_of(layer, shape, format_name), format_name)
    data = layer_data(kernel, stored)
    y, profile = run(kernel, data)
    np.testing.assert_allclose(y, reference(layer, kernel, data, stored), rtol=1e-4, atol=1e-4)
    assert not profile.integer


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("stored", ["int8", "int4"])
def test_integer_kernels_run_and_compute_the_rounded_layer(name, stored):
    layer, shape = LAYERS[name]
    format_name = {"int8": "w8a8", "int4": "w4a8"}[stored]
    kernel = site_kernel(site_of(layer, shape, format_name), format_name)
    data = layer_data(kernel, stored)
    y, profile = run(kernel, data)
    assert profile.integer == (name not in FLOAT_ONLY), profile.executed
    expected = reference(layer, kernel, data, stored)
    step = data.y_scale if kernel.op == "Conv" and profile.integer else 0.0
    # a sum that lies next to a rounding boundary may fall on either side of it
    assert np.abs(y - expected).max() <= step * 1.01 + 1e-3 * np.abs(expected).max()
    assert np.abs(y - expected).mean() <= 0.02 * step + 1e-3 * np.abs(expected).mean()


WEIGHT_ONLY = ["w4", "w4z", "w8t", "w4g32", "w3g32z", "w8b128", "we4m3", "we2m1", "nf4", "wmxfp4", "wmxfp8", "wnvfp4"]


@pytest.mark.parametrize("format_name", WEIGHT_ONLY)
def test_weight_only_formats_run_the_float_kernel(format_name):
    site = site_of(nn.Linear(128, 24), (3, 128), format_name, "fp32")
    assert site_kernel(site, format_name) == site_kernel(site, "fp32")


@pytest.mark.parametrize(
    ("format_name", "weight", "activation"),
    [
        ("w4ta8", "int8", "uint8"),
        ("w8a8s", "int8", "uint8"),
        ("w8za8", "fp32", "uint8"),
        ("w4g32a8", "fp32", "uint8"),
        ("we4m3a8", "fp32", "uint8"),
        ("fp16", "fp32", "fp16"),
    ],
)
def test_kernel_of_a_format_that_rounds_the_input(format_name, weight, activation):
    kernel = site_kernel(site_of(nn.Linear(128, 24), (3, 128), format_name), format_name)
    assert (kernel.weight_format, kernel.activation_format) == (weight, activation)


@pytest.mark.parametrize(
    ("format_name", "instead"),
    [
        ("w4a4", "offer w4a8 or w4"),
        ("w8g32a8d", "offer w8g32a8 or w8g32"),
        ("fp8", "offer we4m3a8 or we4m3"),
        ("nvfp4", "offer wnvfp4a8 or wnvfp4"),
        ("wmxfp6", "6-bit elements"),
    ],
)
def test_formats_without_a_kernel_are_refused_with_what_to_offer(format_name, instead):
    site = site_of(nn.Linear(128, 24), (3, 128), format_name)
    with pytest.raises(NotMeasured, match=instead):
        site_kernel(site, format_name)


@pytest.mark.parametrize("shape", [(1, 8, 9, 9)])
def test_every_storage_of_a_weight_runs_the_same_kernel(shape):
    kernel = site_kernel(site_of(nn.Conv2d(8, 16, 3), shape, "fp32"), "fp32")
    executed = {
        stored: run(kernel, layer_data(kernel, stored))[1].executed for stored in ("fp32", "bf16", "int8", "int4")
    }
    assert len(set(executed.values())) == 1, executed


def test_two_bit_storage_where_the_runtime_has_it():
    onnx = pytest.importorskip("onnx")
    if onnx.defs.onnx_opset_version() < 25:
        pytest.skip("this onnx has no int2")
    layer, shape = LAYERS["linear-2d"]
    for format_name in ("w2", "w2a8"):
        kernel = site_kernel(site_of(layer, shape, format_name), format_name)
        data = layer_data(kernel, "int2")
        y, profile = run(kernel, data)
        np.testing.assert_allclose(y, reference(layer, kernel, data, "int2"), rtol=1e-3, atol=1e-3)
        assert profile.integer == (format_name == "w2a8")


def test_embedding():
    layer = nn.Embedding(30, 6)
    site = site_of(layer, (2, 3), "w8", "bf16")
    assert site_kernel(site, "w8") == site_kernel(site, "bf16")
    kernel = site_kernel(site, "w8", batch=4)
    data = layer_data(kernel, "int8")
    y, profile = run(kernel, data)
    assert y.shape == (4, 3, 6)
    np.testing.assert_allclose(y, reference(layer, kernel, data, "int8"), rtol=1e-6)
    assert profile.executed == ("Gather",)


def test_weight_of_inputs_by_outputs():
    """Hugging Face's Conv1D: y = x W + b with W [inputs, outputs]."""
    site = dataclasses.replace(
        site_of(nn.Linear(16, 24), (2, 5, 16), "w8a8", "fp32"), kind="hf_conv1d", weight_shape=(16, 24), channel_axis=1
    )
    for format_name, stored in (("fp32", "fp32"), ("w8a8", "int8")):
        kernel = site_kernel(site, format_name, batch=2)
        assert (kernel.op, kernel.input_shape) == ("Gemm", (10, 16))
        data = layer_data(kernel, stored)
        y, profile = run(kernel, data)
        x = torch.tensor(data.x)
        weight = torch.tensor(data.weight)
        if stored == "int8":
            x = ActivationQuantizer(float(np.float32(data.x_scale)), 128, 8)(x)
            weight = torch.tensor(data.codes).float() * torch.tensor(data.scale)
        np.testing.assert_allclose(y, F.linear(x, weight.T, torch.tensor(data.bias)), rtol=1e-3, atol=1e-3)
        assert profile.integer == (stored == "int8")


def test_attention_projections():
    space = SearchSpace.from_model(Attention(), torch.zeros(2, 5, 16), formats=["w8"])
    kernels = {site.kind: site_kernel(site, "w8", batch=2) for site in space.sites}
    assert kernels["mha_in_proj"].weight_shape == (48, 16)
    assert math.prod(kernels["mha_in_proj"].input_shape) == math.prod(kernels["mha_out_proj"].input_shape) == 160
    for kernel in kernels.values():
        assert run(kernel, layer_data(kernel))[0].shape[-1] == kernel.weight_shape[0]


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


def test_real_measurement_of_a_small_network():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10))
    space = SearchSpace.from_model(model, torch.zeros(1, 3, 8, 8), formats=["w4", "w8a8", "bf16"])
    steps = []
    prices = price(space, metrics=["latency_ms"], seconds=1.0, advance=steps.append)
    rows = prices.measured
    assert sum(steps) == STEPS * len(rows)
    assert len(rows) == 4 + 3
    for row in rows:
        assert row.min_ms <= row.median_ms <= row.p90_ms <= row.p99_ms
        assert row.sigma_ms > 0
        assert row.samples >= 5
        assert (row.device, row.runtime, row.threads) == ("cpu", "onnxruntime", 1)
    integer = {row.op: row.executed for row in rows if row.weight_format == "int8"}
    assert "QLinearConv" in integer["Conv"]
    assert "MatMulIntegerToFloat" in integer["Gemm"]
    total = prices.of(space.uniform("w4"))["latency_ms"]
    assert 0 < total.low < total.value < total.high
    again = price(space, metrics=["latency_ms"], tables=[rows])
    assert len(again.measured) == 0
    assert np.array_equal(again.costs["latency_ms"], prices.costs["latency_ms"], equal_nan=True)


def test_digest_tells_machines_versions_and_threads_apart():
    kernel = site_kernel(site_of(nn.Linear(4, 4), (1, 4), "fp32"), "fp32")
    runner = OnnxRuntimeRunner()
    assert runner.digest(kernel) != OnnxRuntimeRunner(threads=2).digest(kernel)
    assert kernel.digest("cpu", "a", "b", "1", 1) != kernel.digest("cpu", "a", "b", "2", 1)
    wider = dataclasses.replace(kernel, input_shape=(2, 4))
    assert runner.digest(kernel) != runner.digest(wider)
