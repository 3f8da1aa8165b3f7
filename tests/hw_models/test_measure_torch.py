"""Kernels in torch: what they compute, what is refused, how they are named."""

import pytest
import torch
from bitfront.errors import InvalidInput, NotMeasured
from bitfront.hw_models.measure import CONVERSIONS, FORMATS, conversion, convolution, format_of, in_format, product
from bitfront.hw_models.measure.backend import work
from bitfront.hw_models.measure.torch_kernels import checked, load
from bitfront.hw_models.measure.torch_support import refusal
from bitfront.hw_models.tables.kernel_formats import kernel_of_row

PRODUCTS, CONVOLUTIONS = FORMATS["cuda", "torch"]


@pytest.mark.parametrize("format_name", PRODUCTS)
@pytest.mark.parametrize("bias", [False, True])
def test_products_compute_what_their_operands_say(format_name, bias):
    """The builders of the GPU run on the CPU too, which has every one of these operators."""
    kernel = in_format(product(20, 64, 256, bias), format_name, "torch")
    loaded = checked(kernel, "cpu")
    assert loaded.error() < loaded.bound
    assert loaded.call().shape == (20, 64)


@pytest.mark.parametrize("format_name", CONVOLUTIONS)
def test_convolutions(format_name):
    for base in (convolution(2, 16, 15, 13, 32, 3, stride=2), convolution(1, 16, 14, 14, 16, 5, groups=16)):
        kernel = in_format(base, format_name, "torch")
        loaded = checked(kernel, "cpu")
        assert loaded.x.is_contiguous(memory_format=torch.channels_last)
        macs, _ = work(kernel)
        assert macs == loaded.call().numel() * kernel.weight_shape[1] * kernel.weight_shape[2] ** 2


@pytest.mark.parametrize("name", CONVERSIONS)
def test_conversions(name):
    kernel = conversion(name, (2, 8, 12, 12))
    loaded = checked(kernel, "cpu")
    assert format_of(kernel) == name
    assert loaded.call().shape == (2, 8, 12, 12)
    assert work(kernel)[1] > 0


def test_a_kernel_that_computes_something_else_is_not_timed(monkeypatch):
    monkeypatch.setattr(torch, "_int_mm", lambda a, b: torch.ones(len(a), b.shape[1], dtype=torch.int32))
    with pytest.raises(NotMeasured, match="differs from the reference"):
        checked(in_format(product(20, 64, 256), "w8a8", "torch"), "cpu")


def test_what_torch_refuses_is_refused_with_its_reason(monkeypatch):
    def broken(*_):
        raise RuntimeError("self.size(0) needs to be greater than 16\nmore")

    monkeypatch.setattr(torch, "_int_mm", broken)
    with pytest.raises(NotMeasured, match=r"torch refuses: self.size\(0\) needs to be greater than 16$"):
        checked(in_format(product(20, 64, 256), "w8a8", "torch"), "cpu")


def test_a_broken_device_is_no_refusal(monkeypatch):
    def broken(*_):
        raise torch.AcceleratorError("an illegal memory access")

    monkeypatch.setattr(torch, "_int_mm", broken)
    with pytest.raises(torch.AcceleratorError):
        checked(in_format(product(20, 64, 256), "w8a8", "torch"), "cpu")


def test_input_is_written_before_every_run():
    loaded = load(in_format(product(4, 16, 32), "bf16", "torch"), "cpu")
    loaded.x.zero_()
    loaded.prepare()
    assert torch.equal(loaded.x, loaded.fresh)
    assert loaded.x.data_ptr() != loaded.fresh.data_ptr()


def test_tf32_is_asked_for_only_where_it_is_measured():
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        for name, precision in (("tf32", "high"), ("fp32", "highest")):
            load(in_format(product(4, 16, 32), name, "torch"), "cpu").prepare()
            assert torch.get_float32_matmul_precision() == precision
            assert torch.backends.cudnn.allow_tf32 == (name == "tf32")
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


@pytest.mark.parametrize(
    ("name", "m", "n", "k", "capability", "reason"),
    [
        ("fp8", 64, 64, 64, (8, 0), "no fp8"),
        ("fp8", 64, 64, 72, (9, 0), "multiples of 16"),
        ("w8a8", 16, 64, 64, (9, 0), "more than 16 rows"),
        ("w8a8d", 64, 60, 64, (9, 0), "multiples of 8"),
        ("bf16", 64, 64, 64, (7, 5), "no such kernel"),
        ("int4_wo", 64, 64, 64, (9, 0), "multiples of 128"),
        ("int4_wo_g32", 64, 64, 64, (9, 0), None),
        ("fp8_row", 64, 64, 64, (9, 0), None),
        ("fp16", 1, 7, 9, (7, 0), None),
    ],
)
def test_limits_of_gpus(name, m, n, k, capability, reason):
    found = refusal(in_format(product(m, n, k), name, "torch"), "cuda", capability)
    assert found is None if reason is None else reason in found


@pytest.mark.parametrize(("device", "runtime"), FORMATS)
def test_names_and_kernels_agree_and_the_tables_read_them(device, runtime):
    formats = FORMATS[device, runtime][0]
    kernels = [in_format(product(32, 64, 256), name, runtime) for name in formats]
    assert [format_of(kernel) for kernel in kernels] == list(formats)
    for kernel, name in zip(kernels, formats, strict=True):
        if (runtime, name) not in (("onnxruntime", "bf16"), ("onnxruntime", "fp16")):  # float32 on rounded input
            assert kernel_of_row(kernel.weight_format, kernel.activation_format, kernel.parameters) == name


def test_work_of_a_product():
    macs, traffic = work(in_format(product(8, 32, 64), "int4_wo", "torch"))
    assert macs == 8 * 32 * 64
    assert traffic == 8 * 64 * 2 + 32 * 64 / 2 + 8 * 32 * 2


def test_impossible_shapes():
    with pytest.raises(InvalidInput, match="cannot have 3 groups"):
        convolution(1, 16, 8, 8, 16, 3, groups=3)
    with pytest.raises(InvalidInput, match="does not fit"):
        convolution(1, 16, 3, 3, 16, 5, padding=0)
    with pytest.raises(InvalidInput, match="four dimensions"):
        conversion("channels_last", (8, 8))
    with pytest.raises(InvalidInput, match="unknown conversion"):
        conversion("squeeze", (8, 8))
