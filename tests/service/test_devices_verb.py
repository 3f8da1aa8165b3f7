"""``bitfront devices``: the list, one device, JSON, a user's own table, one line of error."""

import json

import pytest
from bitfront.service.cli import main


@pytest.fixture
def devices(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("BITFRONT_TABLES", str(tmp_path / "tables"))

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["bitfront", "devices", *arguments])
        with pytest.raises(SystemExit) as done:
            main()
        out, err = capsys.readouterr()
        return done.value.code, out, err

    return call


def test_the_list_names_every_device_and_its_tables(devices):
    code, out, _ = devices("--json")
    assert code == 0
    rows = {row["device"]: row for row in json.loads(out)}
    assert rows["cpu"]["latency"] == "measured"
    assert (rows["nvidia-t4"]["latency"], rows["nvidia-t4"]["tables"]) == ("roofline", [])
    h100 = rows["nvidia-h100-sxm"]
    assert h100["latency"] == "measured"
    first = h100["tables"][0]
    assert first["runtime"] == "trtllm"
    assert first["rows"] > 50_000
    assert {"bf16", "fp8", "fp8d", "fp8b128"} <= set(first["formats"])
    assert len(first["digest"]) == 16
    assert first["source"].startswith("aiconfigurator-core ")
    _, text, _ = devices()
    for name in rows:
        assert name in text
    assert first["digest"] in text


def test_one_device_in_full(devices):
    code, out, _ = devices("nvidia-a100-sxm-80gb", "--json")
    assert code == 0
    found = json.loads(out)
    kernels = {each["kernel"]: each for each in found["kernels"]}
    assert set(kernels) == {"bf16", "int8_wo", "int4_wo", "w8a8"}
    assert "w4g128" in kernels["int4_wo"]["formats"]
    assert kernels["int4_wo"]["singly_timed"]
    assert not kernels["bf16"]["singly_timed"]
    assert kernels["bf16"]["n"] == [32, 65536]
    assert kernels["bf16"]["rows"] == 9240
    assert "fp8" not in found["formats"]
    _, text, _ = devices("nvidia-a100-sxm-80gb")
    assert "32-65536" in text
    assert "w4g128" in text
    assert "timed singly" in text


def test_a_runtime_can_be_asked_for(devices):
    _, out, _ = devices("nvidia-h100-sxm", "--runtime", "vllm", "--json")
    found = json.loads(out)
    assert {each["runtime"] for each in found["kernels"]} == {"vllm"}
    assert {each["runtime"] for each in found["tables"]} == {"vllm"}


def test_a_device_without_a_table_is_a_roofline_and_says_so(devices):
    code, out, _ = devices("nvidia-t4")
    assert code == 0
    assert "roofline of the data sheet only" in out
    found = json.loads(devices("nvidia-t4", "--json")[1])
    assert (found["latency"], found["kernels"]) == ("roofline", [])


def test_a_users_table_makes_a_device_measured(devices, tmp_path):
    from bitfront.hw_models.tables import add

    lines = ["device,runtime,runtime_version,format,m,n,k,mean_ms"]
    lines += [f"nvidia-t4,own,1.0,fp16,{m},{n},256,{0.01 * m * n:g}" for m in (1, 16) for n in (64, 128)]
    (tmp_path / "own.csv").write_text("\n".join(lines))
    add(tmp_path / "own.csv")
    found = json.loads(devices("nvidia-t4", "--json")[1])
    assert found["latency"] == "measured"
    (kernel,) = found["kernels"]
    assert (kernel["kernel"], kernel["rows"], kernel["m"], kernel["runtime"]) == ("fp16", 4, [1, 16], "own")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["h100"], "unknown device 'h100'; nearest: nvidia-h100-sxm"),
        (["nvidia-t4", "--runtime", "vllm"], "no measured products of nvidia-t4 in vllm"),
        (["--runtime", "vllm"], "--runtime vllm needs a device"),
    ],
)
def test_errors_are_one_line(devices, arguments, told):
    code, out, err = devices(*arguments)
    assert (code, out) == (2, "")
    assert told in err
    assert err.count("\n") == 1
