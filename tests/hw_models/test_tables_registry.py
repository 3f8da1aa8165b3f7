"""The registry: what is listed, which table answers, the user's folder."""

import numpy as np
import pandas as pd
import pytest
from bitfront.errors import InvalidInput, NotMeasured
from bitfront.hw_models.gemm import Gemms
from bitfront.hw_models.tables import add, aiconfigurator, answering, gemms, load, summary, tables, user_folder

HEAD = "device,runtime,runtime_version,format,m,n,k,median_ms\n"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("BITFRONT_TABLES", str(tmp_path / "tables"))
    return tmp_path / "tables"


@pytest.fixture
def alone(monkeypatch):
    """Without aiconfigurator-core."""
    monkeypatch.setattr(aiconfigurator, "installed_version", lambda: None)


@pytest.fixture
def mine(tmp_path):
    def make(device="nvidia-t4", runtime="torch", formats=("bf16", "w8a8"), rows=3, ms=1.0, name="mine.csv"):
        lines = [f"{device},{runtime},1,{kind},{m + 1},64,32,{ms}" for kind in formats for m in range(rows)]
        (tmp_path / name).write_text(HEAD + "\n".join(lines) + "\n")
        return tmp_path / name

    return make


def test_adding_a_table(mine, folder, alone):
    assert tables() == []
    (info,) = add(mine(), source="bench of 22 November", licence="MIT", date="2026-11-22")
    assert tables("nvidia-t4") == [info]
    assert info.formats == (("bf16", 3), ("w8a8", 3))
    assert (info.rows, info.others, info.m, info.n, info.k) == (6, 0, (1, 3), (64, 64), (32, 32))
    assert (info.origin, info.statistic, info.dates) == ("user", "median", ("2026-11-22",))
    assert info.provenance == (
        f"measured: nvidia-t4, torch 1, 6 rows (median), bench of 22 November (MIT), 2026-11-22, digest {info.digest}"
    )
    assert set(info.grammar) >= {"bf16", "w8a8", "w8a8d"}
    assert add(mine(), source="bench of 22 November", licence="MIT", date="2026-11-22") == [info]
    assert len(list(folder.glob("*"))) == 1


def test_a_file_of_two_devices_is_listed_for_each(tmp_path, alone):
    (tmp_path / "two.csv").write_text(HEAD + "nvidia-t4,torch,1,bf16,1,64,32,1\nnvidia-l4,torch,1,bf16,1,64,32,2\n")
    assert [info.device for info in add(tmp_path / "two.csv")] == ["nvidia-l4", "nvidia-t4"]
    assert gemms("nvidia-t4").ms.tolist() == [1.0]
    assert gemms("nvidia-l4").ms.tolist() == [2.0]


def test_nothing_measured(alone, mine):
    with pytest.raises(NotMeasured, match=r"no measured products of nvidia-t4; measured devices: none. Pip install"):
        gemms("nvidia-t4")
    add(mine())
    with pytest.raises(NotMeasured, match=r"of nvidia-t4 in trtllm; measured in torch: take one of these"):
        gemms("nvidia-t4", "trtllm")
    with pytest.raises(NotMeasured, match="measured devices: nvidia-t4"):
        gemms("nvidia-l4")


def test_a_file_that_is_no_table_is_named(folder):
    folder.mkdir()
    (folder / "notes.parquet").write_text("hello")
    with pytest.raises(InvalidInput, match=r"notes\.parquet is not a parquet file of measurements"):
        tables()


def test_the_larger_of_the_users_tables_answers(mine, alone):
    add(mine(rows=3, ms=1.0))
    add(mine(rows=5, ms=2.0, formats=("bf16",), name="more.csv"))
    assert gemms("nvidia-t4").take(np.arange(5)).ms.tolist() == [2.0] * 5
    found = gemms("nvidia-t4")
    assert {kind: found.ms[found.format == kind].tolist() for kind in ("bf16", "w8a8")} == {
        "bf16": [2.0] * 5,
        "w8a8": [1.0] * 3,
    }


def test_a_changed_file_is_read_again(mine, alone):
    (info,) = add(mine(ms=1.0))
    assert gemms("nvidia-t4").ms[0] == 1.0
    frame = load(info).frame.assign(median_ms=7.0)
    frame.to_parquet(info.path)
    assert gemms("nvidia-t4").ms[0] == 7.0
    assert tables()[0].digest != info.digest


def test_nvidias_tables_answer_and_the_users_fill_the_gaps(mine):
    pytest.importorskip("aiconfigurator_core")
    before = gemms("nvidia-l40s")
    assert set(before.format.tolist()) == {"bf16", "fp8", "fp8_block"}
    add(mine(device="nvidia-l40s", formats=("bf16", "int4_wo"), rows=2, ms=0.5))
    chosen = answering("nvidia-l40s")
    assert {kernel: info.origin for kernel, info in chosen.items()} == {
        "bf16": "aiconfigurator",
        "fp8": "aiconfigurator",
        "fp8_block": "aiconfigurator",
        "int4_wo": "user",
    }
    after = gemms("nvidia-l40s")
    assert len(after) == len(before) + 2
    assert after.ms[after.format == "int4_wo"].tolist() == [0.5, 0.5]
    assert gemms("nvidia-l40s", "torch").format.tolist() == ["bf16", "bf16", "int4_wo", "int4_wo"]
    assert isinstance(after, Gemms)
    with pytest.raises(ValueError, match="read-only"):
        after.ms[0] = 1.0


def test_listing_and_loading():
    pytest.importorskip("aiconfigurator_core")
    (info,) = [info for info in tables("nvidia-a100-sxm-80gb") if info.runtime == "trtllm"]
    assert info.provenance.startswith(
        "measured: nvidia-a100-sxm-80gb, TensorRT-LLM 1.0.0, 27,384 rows (mean), aiconfigurator-core 0."
    )
    table = load(info)
    assert len(table.frame) == info.rows
    assert table.frame["source"].unique().tolist() == [info.source]
    found, direct = table.gemms(), aiconfigurator.gemms("nvidia-a100-sxm-80gb", "trtllm")
    assert (found.ms == direct.ms).all()
    assert (found.format == direct.format).all()
    frame = summary("nvidia-a100-sxm-80gb")
    assert isinstance(frame, pd.DataFrame)
    assert frame.loc[0, ["rows", "time", "m"]].tolist() == [27384, "mean", "1 to 8192"]


def test_default_folder(monkeypatch):
    monkeypatch.delenv("BITFRONT_TABLES")
    assert user_folder().parts[-3:] == (".cache", "bitfront", "tables")
