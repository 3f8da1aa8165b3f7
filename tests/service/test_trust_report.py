"""The trust report on the page: every number with its interval, old documents as before, nothing runs."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from bitfront.search.trust import trust_report
from bitfront.service.front_document import Front, Trust
from bitfront.service.report import render_report
from bitfront.service.trust_figure import trust_figure
from bitfront.service.trust_table import cells, heads, told, trust_section

MAKE = runpy.run_path(str(Path(__file__).parents[1] / "front_documents.py"))["front_document"]


def report(points=60):
    generator = np.random.default_rng(0)
    sizes = generator.uniform(1, 2, size=points)
    measured = np.exp(-sizes + generator.normal(size=points))
    predicted = {"knows": measured * generator.lognormal(0, 0.2, points), "nothing": generator.normal(size=points)}
    found = trust_report(predicted, measured, sizes, sizes, seconds={"knows": 12.5}, draws=200).to_dict()
    return {**found, "choice": {"proxy": "knows", "weights": {"knows": 1.0}, "reason": "knows: tau at fixed size"}}


@pytest.fixture(scope="module")
def trust():
    return Trust.model_validate(report())


def test_every_row_has_a_cell_for_every_head(trust):
    assert "regret, top 5" in heads(trust)
    for name, row in trust.rows.items():
        assert len(cells(name, row)) == len(heads(trust))


def test_the_page_shows_values_intervals_baselines_and_the_choice(trust):
    page = render_report(Front.parse({**MAKE(), "trust": report()}))
    text = page[page.index("How far can the predictions be trusted?") :]
    row = trust.rows["knows"]
    assert f"<td>{row.kendall_fixed.value:.2f}<br>" in text
    assert f"[{row.kendall_fixed.low:.2f}, {row.kendall_fixed.high:.2f}]" in text
    for name in ("size (baseline)", "bops (baseline)", "random (baseline)"):
        assert f"<th>{name}</th>" in text
    assert "Chosen by the measurements: knows: tau at fixed size." in text
    assert "<tr class=best><th>knows</th>" in text
    assert "60 measured configurations" in text
    assert "How well the proxies ordered what was measured" not in text


def test_a_document_without_the_report_shows_what_it_has():
    page = render_report(Front.parse(MAKE()))
    assert "How far can the predictions be trusted?" not in page
    assert "How well the proxies ordered what was measured" in page


def test_too_few_points_are_dashes_and_a_note():
    few = np.array([1.0, 2.0])
    trust = Trust.model_validate(trust_report({"p": np.zeros(2)}, few, few, few, draws=10).to_dict())
    assert [value for value, _ in cells("p", trust.rows["p"])][1:-1] == ["—"] * 8
    flat = Trust.model_validate(trust_report({"p": few}, np.ones(2), few, few, draws=10).to_dict())
    figure = trust_figure(flat)
    assert figure.layout.annotations[0].text == "too few measurements to tell"


def test_the_figure_has_a_marker_for_every_known_correlation(trust):
    figure = trust_figure(trust)
    overall, fixed = figure.data
    assert list(overall.y) == list(trust.rows)
    assert fixed.x[0] == trust.rows["knows"].kendall_fixed.value
    assert fixed.error_x.array[0] == pytest.approx(trust.rows["knows"].kendall_fixed.above)


def test_names_are_escaped():
    evil = "<script>alert(1)</script>"
    content = report()
    content["rows"] = {evil: content["rows"]["knows"]}
    content["choice"]["reason"] = evil
    section = trust_section(Trust.model_validate(content))
    assert evil not in section
    assert "&lt;script&gt;" in section


def test_the_explanation_gives_the_numbers_that_the_table_rests_on(trust):
    assert f"{trust.pairs} pairs" in told(trust)
    assert "at most 5 %" in told(trust)
