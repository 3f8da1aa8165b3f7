"""`bitfront formats`: the table of numeric formats."""

import json

import pytest
from bitfront.errors import UnknownFormat
from bitfront.formats import Format, names
from bitfront.service import cli
from bitfront.service.format_table import format_rows


def test_one_format_in_words():
    (row,) = format_rows("w4g128za8d")
    assert row["weight"] == "int4 per 128, fp16 scales, zero-point"
    assert row["input"] == "int8 per token, dynamic"
    assert row["effective bits"] == pytest.approx(4 + (16 + 4) / 128, abs=1e-4)
    assert format_rows("w3")[0]["stored bits"] == pytest.approx(4 + 32 / 4096, abs=1e-4)


def test_the_list_is_that_of_the_grammar():
    listed = [row["format"] for row in format_rows(everything=True)]
    assert listed == list(names())
    with_kernels = {row["format"]: row["kernels"] for row in format_rows()}
    assert {"w4g128", "w8a8", "fp8", "nvfp4", "nf4", "bf16"} <= set(with_kernels)
    assert "none known" not in with_kernels.values()
    assert set(with_kernels) < set(listed)


def test_the_verb(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["bitfront", "formats", "nvfp4", "--json"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    (row,) = json.loads(capsys.readouterr().out)
    assert ended.value.code == 0
    assert row["effective bits"] == pytest.approx(Format.parse("nvfp4").effective_bits((4096, 4096), 0), abs=1e-4)
    monkeypatch.setattr("sys.argv", ["bitfront", "formats", "w44"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "unknown format 'w44'; nearest: " in capsys.readouterr().err


def test_an_unknown_name():
    with pytest.raises(UnknownFormat):
        format_rows("int8")
