"""Named devices: the list, the names of hardware, agreement with the data sheets in NVIDIA's package."""

import json
from pathlib import Path

import bitfront.hw_models
import pytest
import yaml
from bitfront.errors import InvalidInput
from bitfront.hw_models import device, devices
from bitfront.hw_models.devices import device_named
from bitfront.hw_models.tables import aiconfigurator
from bitfront.hw_models.tables.aiconfigurator_files import read

CONTENT = json.loads((Path(bitfront.hw_models.__file__).parent / "devices.json").read_text())
SHEETS = aiconfigurator.SYSTEMS | {
    "a100_pcie": "nvidia-a100-pcie-80gb",
    "a30": "nvidia-a30",
    "h100_pcie": "nvidia-h100-pcie",
    "l4": "nvidia-l4",
}


def test_every_entry_says_the_same_things():
    for name, entry in CONTENT["devices"].items():
        keys = {"bandwidth_gb_s", "peak_tera", "power_w", "compute_capability", "hardware", "reference"}
        assert set(entry) == keys, name
        assert entry["bandwidth_gb_s"] > 0
        assert entry["power_w"] > 0
        assert all(peak > 0 for peak in entry["peak_tera"].values())
        assert "NVIDIA" in entry["reference"]


@pytest.mark.parametrize(("system", "name"), SHEETS.items())
def test_data_sheets_agree_with_nvidias_package(system, name):
    pytest.importorskip("aiconfigurator_core")
    sheet = yaml.safe_load((aiconfigurator.systems_folder() / f"{system}.yaml").read_text())["gpu"]
    known = device(name)
    assert known.power_w == sheet["power"]
    assert known.compute_capability == f"{sheet['sm_version'] // 10}.{sheet['sm_version'] % 10}"
    assert known.bandwidth_gb_s == pytest.approx(sheet["mem_bw"] / 1e9, rel=0.04)  # B200: 8.0 here, 7.7 in an HGX
    for ours, theirs in {"bf16": "bfloat16", "fp8": "fp8", "fp4": "fp4", "int8": "int8"}.items():
        if f"{theirs}_tc_flops" in sheet:
            assert known.peak_tera[ours] == pytest.approx(sheet[f"{theirs}_tc_flops"] / 1e12, rel=0.003), ours
        else:
            assert ours not in known.peak_tera


def test_names_of_hardware():
    names = [name for entry in CONTENT["devices"].values() for name in entry["hardware"]]
    assert len(names) == len(set(names))
    assert device_named("NVIDIA H100 80GB HBM3") == device_named("nvidia-h100-sxm") == "nvidia-h100-sxm"
    with pytest.raises(
        InvalidInput, match="no device is known for the hardware 'NVIDIA H100 NVL'; nearest: NVIDIA H100"
    ):
        device_named("NVIDIA H100 NVL")
    with pytest.raises(InvalidInput, match="say which it is with device="):
        device_named("zzzzzzzz")


def test_tables_name_the_hardware_of_their_device():
    pytest.importorskip("aiconfigurator_core")
    for part in aiconfigurator.parts():
        (hardware,) = read(part.path, ["device"])["device"].unique().to_pylist()
        assert device_named(hardware) == part.device


def test_devices_tell_what_was_measured(tmp_path, monkeypatch):
    pytest.importorskip("aiconfigurator_core")
    monkeypatch.setenv("BITFRONT_TABLES", str(tmp_path))
    frame = devices().set_index("device")
    assert frame.index[0] == "cpu"
    assert frame.loc["nvidia-t4", ["latency", "kernels", "rows", "runtimes"]].tolist() == ["roofline", "", 0, ""]
    assert frame.loc["nvidia-a100-sxm-80gb", ["latency", "kernels", "rows", "runtimes"]].tolist() == [
        "measured",
        "bf16 int8_wo int4_wo w8a8",
        27384 + 35742 + 9240,
        "trtllm sglang vllm",
    ]
    assert (frame.loc[frame["rows"] > 0, "latency"] == "measured").all()
    assert set(aiconfigurator.SYSTEMS.values()) == set(frame.index[frame["rows"] > 0])


def test_devices_without_the_tables(tmp_path, monkeypatch):
    monkeypatch.setenv("BITFRONT_TABLES", str(tmp_path))
    monkeypatch.setattr(aiconfigurator, "installed_version", lambda: None)
    frame = devices()
    assert set(frame.loc[frame["device"] != "cpu", "latency"]) == {"roofline"}
