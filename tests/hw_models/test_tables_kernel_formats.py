"""Which kernel runs a format: agreement with what else is known of devices, and refusals."""

import pytest
from bitfront.device_generations import generations
from bitfront.errors import InvalidInput, NotMeasured, UnknownFormat
from bitfront.formats import Format, names
from bitfront.hw_models import device
from bitfront.hw_models.gemm import GEMM_FORMATS
from bitfront.hw_models.roofline import compute_type
from bitfront.hw_models.tables import kernel_format, required_kernel, served_formats
from bitfront.hw_models.tables.kernel_formats import PAIRS, kernel_named, kernel_of_row

#: The compute type in which each kernel multiplies, on a device that has it.
MULTIPLIES = {
    "fp32": ("fp32", "nvidia-a100-sxm-80gb"),
    "fp16": ("fp16", "nvidia-a100-sxm-80gb"),
    "bf16": ("bf16", "nvidia-a100-sxm-80gb"),
    "int8_wo": ("bf16", "nvidia-a100-sxm-80gb"),
    "int4_wo": ("bf16", "nvidia-a100-sxm-80gb"),
    "w8a8": ("int8", "nvidia-a100-sxm-80gb"),
    "fp8": ("fp8", "nvidia-h100-sxm"),
    "fp8_block": ("fp8", "nvidia-h100-sxm"),
    "nvfp4": ("fp4", "nvidia-b200"),
}


@pytest.mark.parametrize(
    ("name", "kernel"),
    [
        ("w4", "int4_wo"),
        ("w4g128", "int4_wo"),
        ("w4g128z", "int4_wo"),
        ("w8", "int8_wo"),
        ("w8g32", "int8_wo"),
        ("w8a8", "w8a8"),
        ("w8a8d", "w8a8"),
        ("fp8", "fp8"),
        ("fp8d", "fp8"),
        ("fp8b128", "fp8_block"),
        ("nvfp4", "nvfp4"),
        ("bf16", "bf16"),
        ("fp16", "fp16"),
        ("fp32", "fp32"),
        *((name, None) for name in ("w2", "w3", "w5", "w6", "w7", "w2g128", "w8z", "w4a8", "w4a4", "w4g128ae4m3")),
        *((name, None) for name in ("mxfp8", "mxfp4", "wmxfp4", "wnvfp4", "nf4", "we4m3", "we5m2", "w8a8c", "w8a8g32")),
    ],
)
def test_kernel_of_a_format(name, kernel):
    assert kernel_format(name) == kernel


def test_served_formats_agree_with_the_generations_and_the_roofline():
    served = {kernel: served_formats(kernel) for kernel in GEMM_FORMATS}
    assert [kernel for kernel, formats in served.items() if not formats] == ["tf32"]
    for kernel, formats in served.items():
        for name in formats:
            assert set(generations(Format.parse(name))) - {"cpu"}, name
            kind, on = MULTIPLIES[kernel]
            assert compute_type(Format.parse(name), device(on)) == kind, name


def test_no_format_without_a_gpu_kernel_is_served():
    for name in names():
        if not set(generations(Format.parse(name))) - {"cpu"}:
            assert kernel_format(name) is None, name


def test_required_kernel():
    measured = ("bf16", "fp8", "int8_wo")
    assert required_kernel("w8g128", "nvidia-h100-sxm", measured) == "int8_wo"
    with pytest.raises(NotMeasured) as caught:
        required_kernel("w4", "nvidia-h100-sxm", measured)
    assert str(caught.value) == (
        "format w4 has no price on nvidia-h100-sxm (its kernel int4_wo was not measured there). Measured there: "
        "bf16: bf16; fp8: fp8, fp8d; int8_wo: w8, w8g128, w8g64, w8g32. "
        "Drop the format, choose another device, or measure it (`bitfront measure`)"
    )
    with pytest.raises(NotMeasured, match="no GPU kernel is known for it"):
        required_kernel("w3", "nvidia-h100-sxm", measured)
    with pytest.raises(NotMeasured, match=r"no table has its kernel\). Measured there: nothing"):
        required_kernel("mxfp8", "nvidia-b200", ())
    with pytest.raises(UnknownFormat):
        required_kernel("w9", "nvidia-b200", measured)


def test_rows_name_their_kernel():
    for kernel, pair in PAIRS.items():
        assert kernel_of_row(*pair) == kernel
    assert kernel_of_row("fp8", "fp8", '{"row_scales": [1]}') == "fp8_row"
    assert kernel_of_row("int8", "int8", '{"row_scales": [1]}') == "w8a8d"
    assert kernel_of_row("int4", "bf16", '{"block_size": [128]}') == "int4_wo"
    assert kernel_of_row("int4", "fp32", '{"accuracy_level": 4, "block_size": 32}') == "int4_wo_g32_a8"
    assert kernel_of_row("fp32", "bf16") not in GEMM_FORMATS


def test_words_of_tables():
    aliases = {"bfloat16": "bf16", "sq": "w8a8"}
    assert [kernel_named(word, aliases) for word in ("bfloat16", "sq", "fp8_block", "w4g64")] == [
        "bf16",
        "w8a8",
        "fp8_block",
        "int4_wo",
    ]
    with pytest.raises(InvalidInput, match="'mxfp8' is no kernel that tables know"):
        kernel_named("mxfp8", aliases)
