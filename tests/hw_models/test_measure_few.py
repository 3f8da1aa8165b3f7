"""The choice of a few products to measure on a new device."""

import numpy as np
import pytest
from bitfront.errors import InvalidInput, NotMeasured
from bitfront.hw_models import KernelRow, MeasuredTable
from bitfront.hw_models.gemm import MeasuredGemms
from bitfront.hw_models.measure import convolution, format_of, in_formats, product
from bitfront.hw_models.measure import few as chooser
from bitfront.hw_models.measure.few import few
from bitfront.hw_models.onnx_runner import product_sizes

SHAPES = [(m, n, k) for m in (16, 128, 1024, 4096) for n, k in ((1024, 1024), (4096, 1024), (4096, 4096), (8192, 2048))]
KERNELS = in_formats([product(*shape) for shape in SHAPES], ["bf16", "fp8", "w8a8d"], "torch")


@pytest.fixture(autouse=True)
def tables(monkeypatch):
    """Tables of another device: roofline times of a GPU, bf16 and fp8."""

    def gemms(name):
        if name != "nvidia-h100-sxm":
            raise NotMeasured(f"no table of {name}")
        sizes = [
            (m, n, k) for m in (1, 8, 32, 64, 256, 512, 2048) for n in (512, 2048, 8192) for k in (512, 2048, 8192)
        ]
        m, n, k = np.array(sizes * 2, dtype=np.int64).T
        kinds = np.repeat(["bf16", "fp8"], len(sizes))
        peak = np.where(kinds == "fp8", 2e12, 1e12)
        ms = np.maximum(2e3 * m * n * k / peak, n * k / 3e9) + 0.004
        return MeasuredGemms(np.full(len(m), name), kinds, m, n, k, ms)

    monkeypatch.setattr(chooser, "gemms", gemms)


def row(kernel, device, ms):
    m, n, k = product_sizes(kernel)
    times = dict.fromkeys(("min_ms", "median_ms", "p90_ms", "p99_ms", "mean_ms", "std_ms", "sigma_ms"), ms)
    text = dict.fromkeys(("hardware", "runtime", "runtime_version", "executed", "date"), "x")
    return KernelRow(
        digest=f"{device}{kernel.shape}{format_of(kernel)}",
        device=device,
        threads=1,
        op=kernel.op,
        weight_format=kernel.weight_format,
        activation_format=kernel.activation_format,
        shape=kernel.shape,
        attributes=kernel.parameters,
        conversion_ms=0.0,
        samples=30,
        repeats=1,
        overhead_ms=0.0,
        stable=True,
        mode="graph",
        m=m,
        n=n,
        k=k,
        **times,
        **text,
    )


def test_few_are_chosen_in_formats_that_others_measured():
    offered = [*KERNELS, convolution(1, 16, 8, 8, 16, 3)]
    chosen = few(offered, "nvidia-l40s", ["nvidia-h100-sxm"], 6, MeasuredTable())
    assert len(chosen) == len(set(chosen)) == 6
    assert set(chosen) <= set(KERNELS)
    assert {format_of(kernel) for kernel in chosen} == {"bf16", "fp8"}
    assert len({product_sizes(kernel)[0] for kernel in chosen}) > 1


def test_what_was_measured_is_not_chosen_again():
    first = few(KERNELS, "nvidia-l40s", ["nvidia-h100-sxm"], 4, MeasuredTable())
    rows = MeasuredTable(tuple(row(kernel, "nvidia-l40s", 0.1) for kernel in first))
    assert few(KERNELS, "nvidia-l40s", ["nvidia-h100-sxm"], 4, rows) == []
    second = few(KERNELS, "nvidia-l40s", ["nvidia-h100-sxm"], 8, rows)
    assert len(second) == 4
    assert not set(first) & set(second)
    everything = [kernel for kernel in KERNELS if format_of(kernel) != "w8a8d"]
    full = MeasuredTable(tuple(row(kernel, "nvidia-l40s", 0.1) for kernel in everything))
    assert few(KERNELS, "nvidia-l40s", ["nvidia-h100-sxm"], 99, full) == []
    elsewhere = MeasuredTable(tuple(row(kernel, "nvidia-l4", 0.1) for kernel in first))
    assert few(KERNELS, "nvidia-l40s", ["nvidia-h100-sxm"], 4, elsewhere) == first


def test_refusals():
    with pytest.raises(InvalidInput, match="--few needs --like DEVICE"):
        few(KERNELS, "nvidia-l40s", ["nvidia-l40s"], 4, MeasuredTable())
    with pytest.raises(InvalidInput, match="unknown device 'nvidia-x'"):
        few(KERNELS, "nvidia-x", ["nvidia-h100-sxm"], 4, MeasuredTable())
    with pytest.raises(NotMeasured, match="no table of nvidia-l4"):
        few(KERNELS, "nvidia-l40s", ["nvidia-l4"], 4, MeasuredTable())
    with pytest.raises(NotMeasured, match="none of the kernels is a product in a format that nvidia-h100-sxm measured"):
        few([convolution(1, 16, 8, 8, 16, 3)], "nvidia-l40s", ["nvidia-h100-sxm"], 4, MeasuredTable())
