"""Which job and which point a page shows: chosen by link, by list or by click, and kept when the page changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import streamlit as st

from ..errors import BitfrontError
from .figures.front_plane import knee_row, lower_left
from .models import clicked_point
from .page_end import end_page
from .session import trouble
from .sources import Source, load_view, sources
from .text import plain
from .view import View

SOURCE, POINT = "source", "point"
"""Keys of session state and of links."""


def keep(key: str, options: Sequence[str]) -> str:
    """What is chosen now: session state, else the link, else the first option; written to both."""
    known = st.session_state.get(key)
    if known not in options:
        wanted = st.query_params.get(key)
        known = wanted if wanted in options else options[0]
        st.session_state[key] = known
    st.query_params[key] = known
    return str(known)


def choose_source(where: Any = st) -> Source:
    """The list box of jobs and runs; a page without any says so and ends here."""
    try:
        found = sources()
    except BitfrontError as cause:
        trouble(cause)
    if not found:
        st.info("There is no job and no run yet. Submit one on the page Submit, or run `bitfront run JOB.yaml`.")
        end_page()
    by_key = {source.key: source for source in found}
    keys = list(by_key)
    asked = st.session_state.get(SOURCE) or st.query_params.get(SOURCE)
    if asked and asked not in keys:
        st.warning(plain(f"{asked} is not here, or not any more; this is {by_key[keys[0]].title}."))
    st.session_state["source_box"] = keep(SOURCE, keys)
    chosen = where.selectbox(
        "Job or run",
        keys,
        format_func=lambda key: by_key[key].title,
        key="source_box",
        on_change=_source_chosen,
    )
    return by_key[chosen]


def choose_source_key(key: str) -> None:
    """Choose a job or run by its key; its best point comes first."""
    st.session_state[SOURCE] = key
    st.query_params[SOURCE] = key
    st.session_state.pop(POINT, None)
    st.query_params.pop(POINT, None)


def _source_chosen() -> None:
    choose_source_key(st.session_state["source_box"])


def view_or_stop(source: Source) -> View:
    """The view of a source; what cannot be shown yet is said, with what to do, and the page ends here."""
    try:
        view, why = load_view(source.key)
    except BitfrontError as cause:
        trouble(cause)
    if view is None:
        (st.error if source.state in ("failed", "broken") else st.info)(plain(why))
        if source.key.startswith("job:") and st.button("Open the job", key="open_job"):
            st.switch_page("jobs_page.py")
        end_page()
    return view


def point_of(view: View) -> int:
    """Row of the chosen point: by session state or link, else the best, else the first of the front.

    Raises:
        ValueError: nothing has been measured.
    """
    if not len(view):
        raise ValueError("nothing has been measured")
    known = st.session_state.get(POINT) or st.query_params.get(POINT)
    if known not in view.rows:
        known = view.best if view.best in view.rows else _first(view)
    choose_point(str(known))
    return view.rows[st.session_state[POINT]]


def choose_point(key: str) -> None:
    """Choose a point by its id."""
    st.session_state[POINT] = key
    st.query_params[POINT] = key


def take_click(chart: str) -> None:
    """Callback of a figure: a click chooses the point; an emptied selection changes nothing."""
    chosen = clicked_point(st.session_state.get(chart))
    if chosen is not None:
        choose_point(chosen)


def _first(view: View) -> str:
    """The knee of the front in the first price, else a point of the front, else any."""
    metric = next(iter(view.price_metrics), None)
    if metric is not None:
        quality = view.quality["validation"]
        steps = lower_left(view.prices[metric][:, 0], quality[:, 0])
        bend = knee_row(steps[np.isfinite(quality[steps, 0])], view.prices[metric], quality)
        if bend is not None:
            return str(view.ids[bend])
    front = np.flatnonzero(view.pareto)
    return str(view.ids[int(front[0]) if len(front) else 0])
