"""The real paths through the dashboard, in chromium: sign in, submit, watch, click, move a slider, export."""

import json

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

JOB = """name: seen in a browser
model: {zoo: digits_resnet20}
space: {formats: [w2, w4, w8]}
objectives: [quality, size_mb]
proxies: [weight_mse]
search: {evaluations: 9, seed: 0}
export: null
"""


@pytest.fixture(scope="module")
def finished(site, chromium):
    """A job that a person submitted on the page Submit and saw finish on the page Jobs; its id."""
    page = chromium.new_context(viewport={"width": 1280, "height": 1400}).new_page()
    page.set_default_timeout(180_000)
    page.goto(f"{site.url}/submit")
    page.get_by_label("Token", exact=True).fill(site.token)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Submit a job").wait_for()
    page.get_by_text("YAML", exact=True).click()
    box = page.get_by_label("or paste it here")
    box.fill(JOB.replace("search:", "serch:"))
    box.press("Control+Enter")
    page.get_by_text("line 6, column 1").wait_for()
    box.fill(JOB)
    box.press("Control+Enter")
    page.get_by_text("The server would take it").wait_for()
    page.get_by_role("button", name="Submit", exact=True).click()
    page.get_by_role("heading", name="seen in a browser").wait_for()
    page.get_by_text("succeeded: best").wait_for()
    job = page.url.partition("source=job%3A")[2].partition("&")[0]
    page.context.close()
    return job


def test_nobody_is_let_in_without_a_token(tab, site):
    tab.goto(f"{site.url}/front")
    tab.get_by_role("heading", name="Sign in").wait_for()
    tab.get_by_label("Token", exact=True).fill("bf_not_a_token")
    tab.get_by_role("button", name="Sign in").click()
    tab.get_by_text("does not accept this token").wait_for()
    assert tab.get_by_label("Job or run").count() == 0


def test_a_click_on_the_front_shows_the_layers_of_that_point(signed_in, site, finished):
    page = signed_in
    page.get_by_role("link", name="Front").click()
    page.get_by_role("heading", name="Front", exact=True).wait_for()
    chart = page.locator(".js-plotly-plot").first
    chart.wait_for()
    before = page.get_by_role("heading", name="Chosen").text_content()
    place = _marker(page, "uniform", 0)
    page.mouse.click(*place)
    page.get_by_role("heading", name="Chosen: uniform w2").wait_for()
    assert "uniform w2" not in before
    page.get_by_role("button", name="Open its layers").click()
    page.get_by_role("heading", name="Point", exact=True).wait_for()
    page.locator(".js-plotly-plot").first.wait_for()
    marks = page.evaluate("document.querySelector('.js-plotly-plot').data.map(t => t.name).filter(n => n)")
    assert marks == ["2 bit", "float"]


def test_a_slider_moves_the_answer(signed_in, site, finished):
    page = signed_in
    page.get_by_role("link", name="Front").click()
    slider = page.get_by_role("slider").first
    slider.wait_for()
    assert page.get_by_text("Exact optimum of the scores").count() == 0
    slider.focus()
    for _ in range(30):
        slider.press("ArrowLeft")
    page.get_by_text("Exact optimum of the scores").wait_for()
    first = page.get_by_text("Exact optimum of the scores").text_content()
    slider = page.get_by_role("slider").first
    slider.focus()
    for _ in range(30):
        slider.press("ArrowLeft")
    page.wait_for_function(
        "before => [...document.querySelectorAll('p')].some(p => p.textContent.includes('Exact optimum') "
        "&& p.textContent.split('Solved')[0] !== before.split('Solved')[0])",
        arg=first,
    )


def test_an_export_is_made_and_downloaded(signed_in, site, finished, tmp_path):
    page = signed_in
    page.get_by_role("link", name="Point").click()
    page.get_by_role("heading", name="Point", exact=True).wait_for()
    page.get_by_role("tab", name="Take it along").click()
    with page.expect_download() as told:
        page.get_by_role("button", name="Configuration (JSON)").click()
    config = json.loads(told.value.path().read_text())
    assert set(config.values()) <= {"w2", "w4", "w8"}
    page.get_by_label("Target").click()
    page.get_by_role("option", name="onnx", exact=True).click()
    page.get_by_role("button", name="Export", exact=True).click()
    page.get_by_text("Exported and checked back").wait_for()
    with page.expect_download() as told:
        page.get_by_role("button", name=".onnx").first.click()
    import onnx

    onnx.load(told.value.path())


def test_keyboard_and_names_for_screen_readers(signed_in, site, finished):
    page = signed_in
    page.get_by_role("link", name="Front").click()
    page.get_by_role("heading", name="Front", exact=True).wait_for()
    page.locator(".js-plotly-plot").first.wait_for()
    unnamed = page.evaluate(
        "[...document.querySelectorAll('[data-testid=stMain] button, [data-testid=stMain] input')]"
        ".filter(e => e.offsetParent && !(e.innerText || e.ariaLabel || e.title || e.getAttribute('aria-label') "
        "|| e.getAttribute('aria-labelledby') || (e.labels && e.labels.length))).map(e => e.outerHTML.slice(0, 120))"
    )
    assert unnamed == []
    page.get_by_label("Across").focus()
    page.keyboard.press("ArrowDown")
    page.get_by_role("option").first.wait_for()


def _marker(page, trace, index):
    """Where a marker is drawn on the screen."""
    return page.evaluate(
        """([name, index]) => {
            const plot = document.querySelector('.js-plotly-plot');
            const number = plot.data.findIndex(t => t.name === name);
            const {x, y} = plot.calcdata[number][index];
            const {xaxis, yaxis} = plot._fullLayout;
            const box = plot.getBoundingClientRect();
            return [box.x + xaxis._offset + xaxis.c2p(x), box.y + yaxis._offset + yaxis.c2p(y)];
        }""",
        [trace, index],
    )
