"""The pure functions of the pages."""

import runpy
from pathlib import Path

import pandas as pd
import pytest
from bitfront.dashboard import models
from bitfront.dashboard.run_folders import RunFolder, RunState
from bitfront.dashboard.text import plain
from bitfront.service.front_document import Front

MAKE = runpy.run_path(str(Path(__file__).parents[1] / "front_documents.py"))["front_document"]


@pytest.fixture(scope="module")
def front():
    return Front.parse(MAKE())


def test_runs_table_has_a_row_for_every_state(front):
    run = RunFolder("out/a", Path("out/a"))
    table = models.runs_table([RunState(run, "finished", "", front), RunState(run, "broken", "half")])
    assert table["points"].tolist() == [40, pd.NA]
    assert table["quality of the best"][0] == "KL divergence 1.185 [1.019, 1.351] nats"
    assert table["reason"].tolist() == ["", "half"]
    assert len(models.runs_table([])) == 0


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"selection": {"points": [{"customdata": ["p007", "text"]}]}}, "p007"),
        ({"selection": {"points": [{"customdata": {"0": "p007", "1": "text"}}]}}, "p007"),
        ({"selection": {"points": [{"x": 1}, {"customdata": ["p008"]}]}}, "p008"),
        ({"selection": {"points": []}}, None),
        ({"selection": {"points": [{"customdata": [""]}]}}, None),
        ({}, None),
        (None, None),
    ],
)
def test_clicked_point(event, expected):
    assert models.clicked_point(event) == expected


def test_plain_text_has_no_markdown_left():
    assert plain("a*b* [x](http://y)\n# t") == r"a\*b\* \[x\]\(http\://y\) \# t"
    assert models.file_stem("../a b/<c>.json") == "a_b_c_json"
    assert models.file_stem("…") == "run"
