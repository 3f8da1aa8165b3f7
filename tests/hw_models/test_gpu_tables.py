"""Prices from the installed tables of real GPUs: exact hits, bits that are not latency, refusals, labels."""

import numpy as np
import pytest
from bitfront.errors import InvalidInput, NotMeasured
from bitfront.formats import precision_order
from bitfront.hw_models import MeasuredTable, price
from bitfront.hw_models.gemm import Gemms, Prediction
from bitfront.hw_models.gpu import explain, gpu_tables, has_tables, loading
from bitfront.hw_models.latency import latency_inputs
from bitfront.hw_models.tables import add, gemms
from bitfront.space import SearchSpace, Site

A100, H100, B200 = "nvidia-a100-sxm-80gb", "nvidia-h100-sxm", "nvidia-b200"


@pytest.fixture(autouse=True)
def own_tables(monkeypatch, tmp_path):
    """No table of this machine's user plays a part."""
    monkeypatch.setenv("BITFRONT_TABLES", str(tmp_path / "tables"))
    return tmp_path


def latency(formats, inputs, outputs, tokens, device, **how):
    """Format -> milliseconds of one linear layer, and the table."""
    order = tuple(precision_order(formats))
    shapes = {"weight_shape": (outputs, inputs), "input_shape": (tokens, inputs), "output_shape": (tokens, outputs)}
    site = Site("fc", "linear", macs=tokens * inputs * outputs, formats=order, parameter="w", modules=("fc",), **shapes)
    space = SearchSpace([site], order)
    table = price(space, device, metrics=["latency_ms"], **how)["latency_ms"]
    return dict(zip(space.formats, table.values[0], strict=True)), table


def measured(device, kernel, m, n, k, runtime=None):
    rows = gemms(device, runtime)
    (ms,) = rows.ms[(rows.format == kernel) & (rows.m == m) & (rows.n == n) & (rows.k == k)]
    return ms


@pytest.mark.parametrize(("device", "runtime"), [(A100, None), (H100, None), (H100, "vllm"), (B200, "sglang")])
def test_rows_of_the_table_are_the_price(device, runtime):
    found, table = latency(["bf16"], 4096, 4096, 64, device, runtime=runtime)
    assert found["bf16"] == measured(device, "bf16", 64, 4096, 4096, runtime)
    assert table.source == "measured"
    assert "digest" in table.provenance
    assert "aiconfigurator-core" in table.provenance


def test_bits_are_not_latency():
    """On the A100 int4 weights win for a wide layer and few tokens and lose for many; int8 gains nothing at 16."""
    few, _ = latency(["w4", "w8", "bf16"], 12288, 12288, 16, A100)
    many, _ = latency(["w4", "w8", "bf16"], 4096, 4096, 4096, A100)
    assert few["w4"] < 0.5 * few["bf16"]
    assert few["w8"] > few["bf16"]
    assert many["w4"] > 1.1 * many["bf16"]
    assert few["w4"] == measured(A100, "int4_wo", 16, 12288, 12288)


def test_the_best_format_changes_with_device_and_batch():
    """The same layer: fp8 loses to bf16 for one token in TensorRT-LLM on the H100 and wins for 1,024."""
    one, _ = latency(["fp8d", "bf16"], 4096, 4096, 1, H100)
    many, _ = latency(["fp8d", "bf16"], 4096, 4096, 1024, H100)
    assert one["fp8d"] > one["bf16"]
    assert many["fp8d"] < many["bf16"]
    blackwell, _ = latency(["nvfp4", "fp8d", "bf16"], 4096, 4096, 1024, B200)
    assert min(blackwell, key=blackwell.get) == "nvfp4"
    with pytest.raises(NotMeasured, match="format nvfp4 has no price on nvidia-h100-sxm"):
        latency(["nvfp4", "bf16"], 4096, 4096, 1024, H100)


def test_static_scales_are_cheaper_than_dynamic_ones():
    found, table = latency(["fp8", "fp8d"], 4096, 4096, 1024, H100)
    assert 0.5 * found["fp8d"] < found["fp8"] < found["fp8d"]
    assert found["fp8d"] == measured(H100, "fp8", 1024, 4096, 4096)
    assert (table.sigma[0] > 0).all()


def test_int4_on_hopper_is_refused_with_what_there_is():
    with pytest.raises(NotMeasured) as told:
        latency(["w4", "bf16"], 4096, 4096, 16, "nvidia-h200-sxm")
    text = str(told.value)
    assert "format w4 has no price on nvidia-h200-sxm" in text
    assert "fp8: fp8, fp8d" in text
    assert "\n" not in text


def test_a_device_without_a_table_gets_its_roofline_and_a_loud_label():
    _, table = latency(["w4", "fp16"], 512, 512, 4, "nvidia-t4")
    assert table.source == "roofline"
    assert "no table of this device is installed" in table.provenance
    assert not has_tables("nvidia-t4")
    _, asked = latency(["w4", "bf16"], 512, 512, 4, H100, runtime="roofline")
    assert asked.source == "roofline"
    assert "as asked" in asked.provenance


@pytest.mark.parametrize("runtime", ["onnx", "trtlm"])
def test_a_runtime_that_did_not_measure_the_device_is_refused(runtime):
    with pytest.raises(NotMeasured, match=f"in {runtime}; measured in sglang, trtllm, vllm"):
        latency(["bf16"], 512, 512, 4, H100, runtime=runtime)


def test_the_cpu_has_no_runtimes():
    with pytest.raises(InvalidInput, match="on the cpu"):
        latency(["bf16"], 512, 512, 4, "cpu", runtime="vllm", tables=[MeasuredTable()])


def test_laws_of_element_wise_kernels_fit_what_they_are_of():
    tables = gpu_tables(H100)
    assert tables.elementwise.error < 0.06
    assert tables.find_scale.error < 0.06
    assert 0.5e-3 < tables.elementwise.floor_ms < 3e-3
    assert "assumed" in gpu_tables(A100).elementwise.reference


def test_a_users_table_is_asked_and_its_inputs_are_not_taken_for_quantized(own_tables):
    lines = ["device,runtime,runtime_version,format,m,n,k,mean_ms"]
    lines += [f"nvidia-l4,own,1,{name},8,256,256,{ms}" for name, ms in (("fp16", 0.02), ("w8a8", 0.01))]
    (own_tables / "mine.csv").write_text("\n".join(lines))
    add(own_tables / "mine.csv")
    found, table = latency(["w8a8", "fp16"], 256, 256, 8, "nvidia-l4")
    assert found["fp16"] == 0.02
    quantizing = gpu_tables("nvidia-l4").quantize.ms(np.array([3.0 * 8 * 256]))[0]
    assert found["w8a8"] == pytest.approx(0.01 + quantizing)
    assert "own 1" in table.provenance


def test_what_stored_prices_depend_on_names_the_tables(own_tables):
    before = latency_inputs(H100)
    assert any("fp8 " in text for text in before)
    assert latency_inputs(H100, "vllm") != before
    assert latency_inputs("nvidia-t4") == latency_inputs("nvidia-t4", "roofline")
    lines = ["device,runtime,runtime_version,format,m,n,k,mean_ms", f"{H100},own,1,int4_wo,8,256,256,0.02"]
    (own_tables / "mine.csv").write_text("\n".join(lines))
    add(own_tables / "mine.csv")
    after = latency_inputs(H100)
    assert set(before) < set(after)
    assert latency(["w4"], 256, 256, 8, H100)[0]["w4"] == 0.02


def test_predictors_are_made_per_format_and_once(monkeypatch):
    made = []

    class Model:
        def predict(self, gemms: Gemms) -> Prediction:
            ms = np.full(len(gemms), 0.5)
            return Prediction(ms, 0.9 * ms, 1.1 * ms, 0.9)

    def fitted(rows):
        made.append(set(rows.format))
        return Model()

    monkeypatch.setattr("bitfront.hw_models.predictor.fitted", fitted)
    loading._gpu_tables.cache_clear()
    for _ in range(2):
        found, table = latency(["bf16"], 1000, 1000, 7, H100)
        assert (found["bf16"], table.source) == (0.5, "predicted")
    loading._gpu_tables.cache_clear()
    assert made == [{"bf16"}]


def test_every_price_can_be_explained():
    order = ("fp8", "bf16")
    shapes = {"weight_shape": (4096, 4096), "input_shape": (16, 4096), "output_shape": (16, 4096)}
    site = Site("fc", "linear", macs=16 * 4096**2, formats=order, parameter="w", modules=("fc",), calls=2, **shapes)
    space = SearchSpace([site], order)
    frame = explain(space, H100, batch=4)
    table = price(space, H100, batch=4, metrics=["latency_ms"])["latency_ms"]
    assert frame["ms"].tolist() == table.values.ravel().tolist()
    assert frame["kernel"].tolist() == ["fp8", "bf16"]
    assert frame[["m", "n", "k", "share"]].to_numpy().tolist() == [[64, 4096, 4096, 2.0]] * 2
    assert frame["source"].tolist() == ["predicted", "measured"]  # a static scale is a difference of two measurements
    assert frame["table"].str.contains("digest").all()
