"""The adapter to NVIDIA's tables: on a small copy of their layout, and on the installed package."""

import numpy as np
import pandas as pd
import pytest
from bitfront.errors import InvalidInput, NotMeasured
from bitfront.hw_models.gemm import GEMM_FORMATS
from bitfront.hw_models.tables import aiconfigurator, aiconfigurator_files, available, quantization_costs


def products(path, kinds, latency=0.5, rows=2):
    path.mkdir(parents=True)
    frame = pd.DataFrame([(kind, m + 1, 64, 32, latency) for kind in kinds for m in range(rows)])
    frame.columns = ["gemm_dtype", "m", "n", "k", "latency"]
    frame.to_parquet(path / "gemm_perf.parquet")
    (path / "collection_meta.yaml").write_text("schema_version: 1\ntables:\n  gemm_perf:\n    status: complete\n")


def quantization(path, operation, name, latency):
    path.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame({"m": range(1, len(latency) + 1), "latency": latency})
    frame.assign(op_name=operation, quant_dtype="fp8", k=64).to_parquet(path / f"{name}_perf.parquet")


@pytest.fixture
def systems(tmp_path, monkeypatch):
    """Two versions of one runtime, a folder that only reuses, and another runtime."""
    data = tmp_path / "systems" / "data"
    gemm = data / "l40s" / "gemm"
    products(gemm / "trtllm" / "1.2.0", ["bfloat16", "int4_wo"], latency=1.0)
    products(gemm / "trtllm" / "1.10.0rc3", ["bfloat16", "fp8", "mystery"], latency=2.0)
    (gemm / "trtllm" / "1.11.0").mkdir()
    (gemm / "trtllm" / "1.11.0" / "reuse.yaml").write_text("schema_version: 1\n")
    products(gemm / "sglang" / "0.5.9", ["bfloat16", "int8_wo"], latency=3.0)
    measured = data / "l40s" / "quantize"
    quantization(measured / "trtllm" / "1.2.0", "compute_scale", "computescale", [0.1, 0.0, *[0.1] * 18])
    quantization(measured / "trtllm" / "1.2.0", "scale_matrix", "scale_matrix", [0.2] * 20)
    quantization(measured / "sglang" / "0.5.9", "compute_scale", "computescale", [0.1, 0.0, 0.0])
    quantization(measured / "sglang" / "0.5.9", "scale_matrix", "scale_matrix", [0.2] * 3)
    monkeypatch.setattr(aiconfigurator, "systems_folder", lambda: tmp_path / "systems")
    monkeypatch.setitem(quantization_costs.__globals__, "systems_folder", lambda: tmp_path / "systems")
    return tmp_path / "systems"


def times(device="nvidia-l40s", runtime=None):
    found = aiconfigurator.gemms(device, runtime)
    return {kind: set(found.ms[found.format == kind].tolist()) for kind in dict.fromkeys(found.format.tolist())}


def test_newest_version_of_each_format_of_one_runtime(systems):
    assert times() == times(runtime="trtllm") == {"bf16": {2.0}, "fp8": {2.0}, "int4_wo": {1.0}}
    products(systems / "data" / "a100_sxm" / "gemm" / "vllm" / "0.1", ["bfloat16"], latency=4.0)
    assert times("nvidia-a100-sxm-80gb") == {"bf16": {4.0}}


def test_what_sglang_calls_weight_only_is_int8_by_int8(systems):
    assert times(runtime="sglang") == {"bf16": {3.0}, "w8a8": {3.0}}
    assert "w8a8" in aiconfigurator.quantizing("sglang")
    assert "w8a8" not in aiconfigurator.quantizing("trtllm")


def test_listing(systems):
    assert available().to_dict("list") == {
        "device": ["nvidia-l40s"] * 3,
        "runtime": ["trtllm", "trtllm", "sglang"],
        "version": ["1.10.0rc3", "1.2.0", "0.5.9"],
        "formats": ["bf16 fp8", "bf16 int4_wo", "bf16 w8a8"],
        "rows": [4, 4, 4],
    }


def test_refusals(systems):
    with pytest.raises(NotMeasured, match="no products of 'nvidia-l40s' in vllm; it has nvidia-l40s"):
        aiconfigurator.gemms("nvidia-l40s", "vllm")
    with pytest.raises(NotMeasured, match="no products of 'nvidia-t4'"):
        aiconfigurator.gemms("nvidia-t4")
    with pytest.raises(InvalidInput, match="unknown runtime 'tensorrt'; the tables know trtllm, sglang, vllm"):
        aiconfigurator.gemms("nvidia-l40s", "tensorrt")
    with pytest.raises(InvalidInput, match="unknown runtime 'tensorrt'"):
        quantization_costs("nvidia-l40s", "tensorrt")
    with pytest.raises(NotMeasured, match="no quantization costs of 'nvidia-l40s' in vllm"):
        quantization_costs("nvidia-l40s", "vllm")
    products(systems / "data" / "h200_sxm" / "gemm" / "vllm" / "1.0", ["fp8"], latency=0.0)
    with pytest.raises(InvalidInput, match="holds times that are not positive"):
        aiconfigurator.products(next((systems / "data" / "h200_sxm").rglob("*.parquet")), "nvidia-h200-sxm", ["fp8"])


def test_without_the_package(monkeypatch):
    monkeypatch.setattr(aiconfigurator_files, "find_spec", lambda name: None)
    with pytest.raises(InvalidInput, match=r"pip install 'bitfront\[nvidia\]'"):
        aiconfigurator.gemms("nvidia-h100-sxm")


def test_zeros_of_differences_are_not_measured(systems):
    found = quantization_costs("nvidia-l40s")
    assert (found.runtime, len(found)) == ("trtllm 1.2.0", 39)
    assert (found.operation == "compute_scale").sum() == 19
    assert found.ms.min() > 0
    noisy = quantization_costs("nvidia-l40s", "sglang")
    assert set(noisy.operation.tolist()) == {"scale_matrix"}


def test_the_installed_tables():
    pytest.importorskip("aiconfigurator_core")
    expected = {
        "nvidia-a100-sxm-80gb": {"bf16", "int8_wo", "int4_wo", "w8a8"},
        "nvidia-h100-sxm": {"bf16", "fp8", "fp8_block"},
        "nvidia-h200-sxm": {"bf16", "fp8", "fp8_block"},
        "nvidia-l40s": {"bf16", "fp8", "fp8_block"},
        **{
            f"nvidia-{name}": {"bf16", "fp8", "fp8_block", "nvfp4"}
            for name in ("b200", "b300", "gb200", "gb300", "rtx-pro-6000")
        },
    }
    assert set(available()["device"]) == set(expected)
    for device, formats in expected.items():
        found = aiconfigurator.gemms(device)
        assert set(found.format.tolist()) == formats <= set(GEMM_FORMATS)
        assert found.ms.min() > 0
        keys = np.stack([found.m, found.n, found.k, np.unique(found.format, return_inverse=True)[1]])
        assert np.unique(keys, axis=1).shape[1] == len(found)
        assert aiconfigurator.gemms(device) is found
    assert set(aiconfigurator.gemms("nvidia-h100-sxm", "sglang").format.tolist()) == {
        "bf16",
        "fp8",
        "fp8_block",
        "w8a8",
    }


def test_the_installed_quantization_costs():
    pytest.importorskip("aiconfigurator_core")
    found = quantization_costs("nvidia-h100-sxm")
    assert found.runtime.startswith("trtllm ")
    assert set(found.operation.tolist()) == {"scale_matrix", "compute_scale"}
    assert set(found.format.tolist()) == {"fp8"}
    large, small = found.m * found.k > 1e8, found.m * found.k < 1e5
    assert np.median(found.ms[large]) > 10 * np.median(found.ms[small])
    with pytest.raises(NotMeasured, match="no quantization costs of 'nvidia-a100-sxm-80gb'"):
        quantization_costs("nvidia-a100-sxm-80gb")
