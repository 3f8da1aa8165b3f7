"""``bitfront measure`` as a user runs it, on a handful of shapes."""

import json
import sys

import pytest
import torch
import yaml
from bitfront.hw_models import MeasuredTable, planned, price
from bitfront.hw_models.tables import read_table
from bitfront.hw_models.timing import MIN_SAMPLES
from bitfront.service.cli import main
from bitfront.space import SearchSpace
from torch import nn

GRID = {
    "products": [{"m": [1, 17], "nk": [[64, 128]]}],
    "convolutions": {"layers": [{"channels": 16, "height": 8, "out": 16, "window": 3}]},
    "conversions": [{"names": ["quantize_int8", "channels_last"], "shapes": [[1, 16, 8, 8]]}],
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(GRID))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["bitfront", "measure", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return call


def test_a_plan_measures_nothing(folder, run):
    code, out, _ = run("--grid", "grid.yaml", "--plan", "--json")
    assert code == 0
    (plan,) = json.loads(out)
    assert plan["kernels"] == 2 * 8 + 4
    assert sum(part["seconds"] for part in plan["classes"]) == pytest.approx(plan["seconds"])
    assert {part["format"] for part in plan["classes"]} >= {"fp32", "w8a8", "int4_wo", "int4_wo_a8"}
    assert not list(folder.glob("*.parquet"))
    code, out, _ = run("--grid", "grid.yaml", "--plan")
    assert code == 0
    assert "plan      20 kernels, about" in out


@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
def test_rows_are_measured_once(folder, run, runtime):
    arguments = ("--grid", "grid.yaml", "--runtime", runtime, "--out", "t.parquet", "--json", "--keep-unstable")
    formats = ("--formats", "fp32,w8a8,int4_wo_g32")
    code, out, _ = run(*arguments, *formats)
    assert code == 0
    (done,) = json.loads(out)
    expected = {"onnxruntime": 3 * 2 + 2, "torch": 3 * 2 + 1 + 2}[runtime]
    assert (done["measured"], done["refused"], done["left"]) == (expected, [], 0)
    rows = MeasuredTable.from_parquet("t.parquet")
    assert len(rows) == expected
    for row in rows:
        assert row.min_ms <= row.median_ms <= row.p90_ms <= row.p99_ms
        assert row.samples >= MIN_SAMPLES or not row.stable
        assert (row.device, row.runtime, row.cache, row.mode) == ("cpu", runtime, "cold", "eager")
    product = next(row for row in rows if row.weight_format == "int4")
    assert (product.n, product.k) == (64, 128)
    code, out, _ = run(*arguments, *formats)
    (again,) = json.loads(out)
    assert (code, again["measured"], again["known"]) == (0, 0, expected)


def test_the_table_is_read_as_latency_tables_are(folder, run):
    run("--grid", "grid.yaml", "--runtime", "torch", "--out", "t.parquet", "--formats", "fp32,bf16", "--keep-unstable")
    table = read_table("t.parquet")
    assert len(table.frame) == 2 * 2 + 2 + 2
    assert set(table.frame["weight_format"]) == {"fp32", "bf16", "none"}


def test_price_finds_the_rows_of_a_job(folder, run):
    (folder / "factory.py").write_text(
        "from torch import nn\n\n\ndef net():\n"
        "    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))\n"
    )
    import numpy as np

    np.savez(folder / "data.npz", inputs=np.ones((32, 3, 8, 8), np.float32))
    job = {
        "model": {"factory": "factory:net"},
        "data": {"calibration": "data.npz", "validation": "data.npz"},
        "space": {"formats": ["w4", "w8a8", "bf16"]},
        "device": {"name": "cpu", "batch": 4},
        "objectives": ["quality", "latency_ms"],
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    code, out, error = run("job.yaml", "--out", "t.parquet", "--json", "--keep-unstable")
    assert code == 0, error
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
    space = SearchSpace.from_model(model, torch.zeros(2, 3, 8, 8), formats=["w4", "w8a8", "bf16"])
    table = MeasuredTable.from_parquet("t.parquet")
    assert json.loads(out)[0]["measured"] == len(table)
    question = {"device": "cpu", "batch": 4, "metrics": ["latency_ms"], "tables": [table]}
    assert planned(space, **question) == 0
    assert price(space, **question).of(space.uniform("w8a8"))["latency_ms"].value > 0
    code, out, _ = run("job.yaml", "--runtime", "torch", "--plan", "--json")
    assert code == 0
    (plan,) = json.loads(out)
    assert {part["format"] for part in plan["classes"]} == {"bf16", "w8a8"}
    assert plan["refused"] == ["int4_wo: torch takes k in multiples of 128 and n in multiples of 16"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--grid", "grid.yaml"), "give --out TABLE.parquet, or --plan"),
        (("--plan",), "say what to measure: JOB.yaml, --zoo NAME or --grid"),
        (("--plan", "--grid", "grid.yaml", "--zoo", "char_gpt"), "say what to measure"),
        (("--plan", "--grid", "grid.yaml", "--batch", "2"), "--batch belongs to a model"),
        (("--plan", "--zoo", "char_gpt", "--batch", "0"), "--batch '0': give whole numbers"),
        (("--plan", "--grid", "grid.yaml", "--device", "tpu"), "--device 'tpu'"),
        (("--plan", "--grid", "grid.yaml", "--runtime", "tvm"), "--runtime 'tvm': on cpu kernels are timed in onnx"),
        (("--plan", "--grid", "grid.yaml", "--formats", "int3"), "--formats 'int3': known kernel formats are"),
        (("--plan", "--grid", "grid.yaml", "--formats", "fp8"), "onnxruntime on cpu has no kernel in fp8"),
        (("--plan", "--grid", "grid.yaml", "--mode", "fast"), "--mode 'fast': give graph, eager or both"),
        (("--plan", "--grid", "none.yaml"), "cannot read the grid none.yaml"),
        (("--grid", "grid.yaml", "--out", "t.parquet", "--seconds", "0"), "--seconds 0: give a time above 0"),
        (("--plan", "--zoo", "nothing"), "nothing"),
        (("--plan", "--grid", "grid.yaml", "--few", "5", "--like", "nvidia-a10"), "it needs --device cuda"),
        (("--plan", "--grid", "grid.yaml", "--like", "nvidia-a10"), "--like belongs to --few N"),
    ],
)
def test_bad_input_is_one_line(folder, run, arguments, said):
    code, out, error = run(*arguments)
    assert (code, out) == (2, "")
    assert error.startswith("bitfront: ")
    assert error.count("\n") == 1
    assert said in error


def test_without_a_gpu_one_line(folder, run, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, out, error = run("--grid", "grid.yaml", "--device", "cuda", "--out", "t.parquet")
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert "run on a machine with an NVIDIA GPU" in error
    assert not (folder / "t.parquet").exists()


def test_too_little_time_is_told(folder, run):
    code, _, error = run("--grid", "grid.yaml", "--out", "t.parquet", "--seconds", "0.001")
    assert code == 1
    assert "no group of kernels fits into --seconds 0.001; the shortest takes about" in error
