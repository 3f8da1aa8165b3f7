"""The front of a job or run: choose objectives and budgets, click a point."""

import streamlit as st
from bitfront.dashboard.budgets import budget_sliders, show_answer
from bitfront.dashboard.choosing import choose_source, point_of, take_click, view_or_stop
from bitfront.dashboard.figure_words import front_words
from bitfront.dashboard.figures.front_plane import MOST_GREY, QUALITY, front_plane
from bitfront.dashboard.front_summary import headline, point_metrics
from bitfront.dashboard.session import ask_in
from bitfront.dashboard.sources import Source
from bitfront.dashboard.text import plain
from bitfront.dashboard.view import View
from bitfront.service.client_views import ENDED
from bitfront.service.labels import label

LIVE_SECONDS = 2.0


def controls(view: View) -> tuple[str, str, str | None, str]:
    """Axes, colour and split."""
    metrics = [QUALITY, *view.price_metrics]

    def name(metric: str) -> str:
        return label(view.metric if metric == QUALITY else metric)

    columns = st.columns([2, 2, 2, 2])
    x = columns[0].selectbox("Across", view.price_metrics or metrics, format_func=name, key="axis_x")
    y = columns[1].selectbox("Up", [m for m in metrics if m != x], format_func=name, key="axis_y")
    rest = [metric for metric in view.price_metrics if metric not in (x, y)]
    colour = columns[2].selectbox(
        "Colour of the front", [None, *rest], format_func=lambda m: "none" if m is None else name(m), key="axis_colour"
    )
    splits = {"validation": "validation", "holdout": "held-out"}
    split = columns[3].segmented_control(
        "Quality on", list(splits), format_func=lambda key: splits[key], default="validation", key="split"
    )
    return x, y, colour, split or "validation"


def show(source: Source) -> None:
    """The figure with its controls and the answer to the budgets."""
    view = view_or_stop(source)
    if source.key.startswith("job:") and source.state not in ENDED and view.state in ENDED:
        st.rerun()  # the job has ended: once more, without following
    st.caption(plain(headline(view)))
    if not len(view):
        st.info("Prices and scores are known, nothing has been measured yet. This page follows the job.")
        return
    x, y, colour, split = controls(view)
    budgets = budget_sliders(view, split)
    answer = show_answer(view, budgets, split)
    row = point_of(view)
    st.plotly_chart(
        front_plane(view, x, y, split=split, colour=colour, selected=view.ids[row], answer=answer),
        key="front_chart",
        on_select=lambda: take_click("front_chart"),
        selection_mode="points",
        config={"displaylogo": False},
    )
    grey = int((~view.pareto).sum())
    st.caption(
        "Click a point to choose it. Bars are 95 % intervals; grey points are dominated"
        + (f" ({MOST_GREY:,} of {grey:,} are drawn)" if grey > MOST_GREY else "")
        + ", hollow ones miss a constraint, diamonds are uniform, dotted lines are the budgets."
    )
    st.caption(plain(front_words(view, x, y, split)))
    st.subheader(plain(f"Chosen: {view.label(row)}"))
    st.dataframe(point_metrics(view, row), width="stretch")
    if st.button("Open its layers", key="open_point", type="primary"):
        st.switch_page("point_page.py")


ask_in()
st.title("Front")
chosen = choose_source()
following = chosen.key.startswith("job:") and chosen.state not in ENDED
st.fragment(show, run_every=LIVE_SECONDS if following else None)(chosen)
