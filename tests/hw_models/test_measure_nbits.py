"""The 4-bit product of onnxruntime against float64 arithmetic on the weight that its codes stand for."""

import numpy as np
import pytest
from bitfront.hw_models.cpu_kernels import layer_data
from bitfront.hw_models.cpu_nbits import dequantized, quantized_blocks
from bitfront.hw_models.measure import in_format, product
from bitfront.hw_models.onnx_session import load
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("onnxruntime")


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 20), k=st.integers(1, 300), block=st.sampled_from([16, 32, 128]), seed=st.integers(0, 2**32 - 1)
)
def test_every_weight_is_at_most_half_a_step_from_its_code(n, k, block, seed):
    weight = np.random.default_rng(seed).normal(size=(n, k)).astype(np.float32)
    codes, scale = quantized_blocks(weight, block)
    assert codes.shape == (n, -(-k // block), block)
    assert codes.max() <= 15
    step = np.repeat(scale, block, axis=1)[:, :k]
    # the code 15 stands for 7 steps, so the largest positive weight, 7.5 steps, is half a step away
    assert np.all(np.abs(dequantized(codes, scale, k) - weight) <= 0.5001 * step)


@pytest.mark.parametrize("format_name", ["int4_wo", "int4_wo_g32", "int4_wo_a8", "int4_wo_g32_a8"])
@pytest.mark.parametrize(("m", "n", "k", "bias"), [(1, 24, 64, False), (5, 40, 200, True)])
def test_output_is_the_product_with_the_rounded_weight(format_name, m, n, k, bias):
    kernel = in_format(product(m, n, k, bias), format_name, "onnxruntime")
    data = layer_data(kernel)
    loaded = load(kernel, data, profiled=True)
    loaded.run()
    block = dict(kernel.attributes)["block_size"][0]
    weight = dequantized(*quantized_blocks(data.weight, block), k).astype(np.float64)
    wanted = data.x.astype(np.float64) @ weight.T + (0 if data.bias is None else data.bias)
    error = np.linalg.norm(loaded.y - wanted) / np.linalg.norm(wanted)
    assert error < (2e-2 if format_name.endswith("a8") else 1e-5)
    assert "MatMulNBits" in loaded.profile(kernel).executed


def test_weight_of_inputs_by_outputs():
    import dataclasses

    base = dataclasses.replace(product(3, 48, 32), weight_shape=(32, 48), channel_axis=1)
    kernel = in_format(base, "int4_wo_g32", "onnxruntime")
    data = layer_data(kernel)
    loaded = load(kernel, data)
    loaded.run()
    weight = dequantized(*quantized_blocks(np.ascontiguousarray(data.weight.T), 32), 32)
    np.testing.assert_allclose(loaded.y, data.x @ weight.T, rtol=1e-4, atol=1e-4)


def test_buffers_hold_input_and_output_and_little_more():
    """They are shared by the kernels of a group: one that is far too large takes longer to fill than the timing."""
    from bitfront.hw_models.onnx_runner import _activations

    assert _activations(product(2048, 1536, 384)) == 2048 * 1536
    assert _activations(product(2048, 384, 1536)) == 2048 * 1536
    for shape in ((7, 32, 48), (3, 200, 16)):
        loaded = load(product(*shape))
        assert _activations(product(*shape)) >= max(loaded.y.size, shape[0] * shape[2])
