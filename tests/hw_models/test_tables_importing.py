"""A user's own measurements: spellings, units, refusals with their row."""

import pandas as pd
import pytest
from bitfront.errors import InvalidInput
from bitfront.hw_models.tables import read_table

SHORT = """device,format,m,n,k,median_us
nvidia-l4,bf16,1,64,32,100
nvidia-l4,w4g128,1,64,128,50.5
NVIDIA L4,fp8d,8,64,32,75
"""
PACKAGED = """framework,version,device,op_name,kernel_source,gemm_dtype,m,n,k,latency
TRTLLM,1.0.0,NVIDIA H100 80GB HBM3,gemm,torch_flow,bfloat16,1,64,32,0.1
TRTLLM,1.0.0,NVIDIA H100 80GB HBM3,gemm,torch_flow,fp8,1,64,32,0.2
TRTLLM,1.0.0,NVIDIA H100 80GB HBM3,gemm,plugin,sq,1,64,32,0.3
"""


@pytest.fixture
def write(tmp_path):
    def make(text, name="mine.csv"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return make


def test_short_columns_with_formats_of_the_grammar_and_microseconds(write):
    table = read_table(write(SHORT), runtime="Torch", runtime_version="2.13", date="2026-11-22", licence="MIT")
    found = table.gemms()
    assert found.format.tolist() == ["bf16", "int4_wo", "fp8"]
    assert found.device.tolist() == ["nvidia-l4"] * 3
    assert found.ms.tolist() == pytest.approx([0.1, 0.0505, 0.075])
    row = table.frame.iloc[2]
    assert (row["hardware"], row["runtime"], row["runtime_version"]) == ("NVIDIA L4", "torch", "2.13")
    assert (row["source"], row["licence"], row["date"]) == ("mine.csv", "MIT", "2026-11-22")


@pytest.mark.parametrize(("unit", "factor"), [("_ms", 1.0), ("_us", 1e-3), ("_ns", 1e-6), ("_s", 1e3)])
def test_units_by_the_name_of_the_column(write, unit, factor):
    table = read_table(write(SHORT.replace("_us", unit)), runtime="torch")
    assert table.gemms().ms.tolist() == pytest.approx([100 * factor, 50.5 * factor, 75 * factor])


def test_the_columns_of_aiconfigurator(write):
    table = read_table(write(PACKAGED))
    found = table.gemms("nvidia-h100-sxm")
    assert found.format.tolist() == ["bf16", "fp8", "w8a8"]
    assert found.ms.tolist() == [0.1, 0.2, 0.3]
    frame = table.frame
    assert frame["runtime"].unique().tolist() == ["trtllm"]
    assert frame["executed"].tolist() == ["torch_flow", "torch_flow", "plugin"]
    assert frame["attributes"].tolist() == ["{}", '{"quantizes": true}', "{}"]
    assert frame["mean_ms"].tolist() == [0.1, 0.2, 0.3]
    assert frame["median_ms"].isna().all()


def test_a_word_of_aiconfigurator_means_what_the_runtime_ran(write):
    text = PACKAGED.replace("sq", "int8_wo")
    assert read_table(write(text)).gemms().format.tolist() == ["bf16", "fp8", "int8_wo"]
    other = read_table(write(text.replace("TRTLLM", "SGLang")))
    assert other.gemms().format.tolist() == ["bf16", "fp8", "w8a8"]
    assert other.frame["attributes"].tolist() == ["{}", '{"quantizes": true}', '{"quantizes": true}']


def test_columns_can_be_mapped(write):
    text = SHORT.replace("format,m,n,k,median_us", "what,tokens,outputs,inputs,took_ns").replace("device", "card")
    names = {"device": "card", "format": "what", "m": "tokens", "n": "outputs", "k": "inputs", "median_ms": "took_ns"}
    table = read_table(write(text), columns=names, runtime="torch")
    assert table.gemms().ms.tolist() == pytest.approx([1e-4, 5.05e-5, 7.5e-5])
    assert table.gemms().k.tolist() == [32, 128, 32]


def test_parquet_of_the_schema_comes_back_the_same(write, tmp_path):
    table = read_table(write(SHORT), runtime="torch")
    table.to_parquet(tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet").digest == table.digest


def test_convolutions_are_kept(write):
    text = "device,op,weight_format,activation_format,shape,attributes,median_ms\n"
    text += 'nvidia-l4,conv2d,bf16,bf16,1x3x8x8;4x3x3x3,"{""strides"": [1, 1]}",0.5\n'
    frame = read_table(write(text), runtime="torch").frame
    assert (frame["op"][0], frame["m"][0], frame["attributes"][0]) == ("Conv", 0, '{"strides": [1, 1]}')


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("w4g128", "w3"), r"mine.csv, row 2: 'w3' is no kernel that tables know; known: fp32, .*w8a8, bfloat16, sq"),
        (("w4g128", "int5"), "mine.csv, row 2: 'int5' is no kernel"),
        (
            ("NVIDIA L4", "NVIDIA L5"),
            "mine.csv, row 3: no device is known for the hardware 'NVIDIA L5'; nearest: NVIDIA L4",
        ),
        ((",50.5", ",0"), "mine.csv, row 2: the time is 0.0 ms, expected a positive number"),
        ((",50.5", ",-1"), "mine.csv, row 2: the time is -0.001 ms"),
        ((",50.5", ","), "mine.csv, row 2: the time is nan ms"),
        ((",50.5", ",slow"), "mine.csv, row 2, column median_us: 'slow' is not a number"),
        (("fp8d,8,64", "bf16,1,64"), r"mine.csv, row 3: the same kernel as row 1 \(1 such row\)"),
        (("1,64,128", "1,,128"), "mine.csv, row 2: a product with m=1, n=0, k=128"),
        (("format", "kind"), "mine.csv has no column for the format of the kernels"),
        (("device", "where"), r"mine.csv does not say on which device it was measured; give device="),
        (("median_us", "speed"), r"lacks the columns median_ms \(or mean_ms\)"),
    ],
)
def test_refusals_name_the_row(write, change, message):
    text = SHORT.replace("NVIDIA L4", "nvidia-l4") if "bf16,1,64" in change[1] else SHORT
    with pytest.raises(InvalidInput, match=message):
        read_table(write(text.replace(*change, 1)), runtime="torch")


def test_refusals_of_files_and_arguments(write, tmp_path):
    with pytest.raises(InvalidInput, match="lacks the columns runtime;"):
        read_table(write(SHORT))
    with pytest.raises(InvalidInput, match="no table of measurements at"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(InvalidInput, match="no table of measurements at"):
        read_table(tmp_path / "none.parquet")
    with pytest.raises(InvalidInput, match=r"neither .csv, .csv.gz nor .parquet"):
        read_table(write(SHORT, "mine.txt"))
    with pytest.raises(InvalidInput, match="not a CSV file"):
        read_table(write("a,b\n1,2,3\n4,5,6,7\n"))
    with pytest.raises(InvalidInput, match="not a parquet file"):
        read_table(write("hello", "t.parquet"))
    with pytest.raises(InvalidInput, match=r"mine\.csv has no rows"):
        read_table(write(SHORT.splitlines()[0] + "\n"), runtime="torch")
    with pytest.raises(InvalidInput, match=r"columns=\{'speed': …\}: the schema has no such column"):
        read_table(write(SHORT), columns={"speed": "median_us"})
    with pytest.raises(InvalidInput, match=r"mine\.csv has no column 'tokens'; it has device, format"):
        read_table(write(SHORT), columns={"m": "tokens"})


@pytest.mark.reference
def test_the_l40s_table_of_the_reference_data(reference_data):
    path = reference_data / "gemm_l40s_6_formats.csv.gz"
    found = read_table(path, runtime="trtllm", runtime_version="1.0.0").gemms("nvidia-l40s")
    raw = pd.read_csv(path)
    assert len(found) == len(raw) == 44184
    assert set(found.format.tolist()) == {"bf16", "fp8", "fp8_block", "int8_wo", "int4_wo", "w8a8"}
    assert (found.ms == raw["latency"].to_numpy()).all()
