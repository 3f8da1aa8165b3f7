"""How far a job can be believed: proxies, surrogate, latency, who found the front, growth, the work in time."""

import json

import numpy as np
import pandas as pd
import streamlit as st
from bitfront.dashboard.choosing import choose_source, view_or_stop
from bitfront.dashboard.figure_words import agreement_words, growth_words, timeline_words
from bitfront.dashboard.figures.trust import agreement, growth_figure, proxy_scatter, rank_figure, timeline
from bitfront.dashboard.front_summary import headline
from bitfront.dashboard.session import ask_in, require_client
from bitfront.dashboard.sources import Source
from bitfront.dashboard.text import plain
from bitfront.dashboard.trust_model import proposers_table, ranks, work_of
from bitfront.dashboard.view import FloatArray, View
from bitfront.errors import BitfrontError
from bitfront.service.labels import label, number
from bitfront.service.search_figures import progress_figure, proposers_figure
from bitfront.service.trust_figure import trust_figure

QUIET = {"displaylogo": False}


def proxies(view: View) -> None:
    """Every proxy against what was measured."""
    found = ranks(view)
    st.plotly_chart(rank_figure(found), key="ranks", config=QUIET)
    if found:
        told = ", ".join(f"{rank.proxy} {rank.value:.2f} [{rank.low:.2f}, {rank.high:.2f}]" for rank in found)
        st.caption(plain(f"{found[0].points} measured points, 95 % intervals of a bootstrap over points: {told}."))
    if view.sensitivities:
        proxy = st.selectbox("Proxy", list(view.sensitivities), key="trust_proxy")
        st.plotly_chart(proxy_scatter(view, proxy), key="proxy_scatter", config=QUIET)
    if view.front is not None and view.front.trust is not None:
        st.subheader("Beyond the size")
        st.caption(
            "Kendall's tau over all pairs, and over pairs of points of equal size: what a proxy knows of layers."
        )
        st.plotly_chart(trust_figure(view.front.trust), key="trust_figure", config=QUIET)


def surrogate(view: View) -> None:
    """Predictions against measurements."""
    split = st.segmented_control("Measured on", ["validation", "holdout"], default="validation", key="trust_split")
    st.plotly_chart(agreement(view, split or "validation"), key="agreement", config=QUIET)
    st.caption(plain(agreement_words(view, split or "validation")))
    search = view.front.search if view.front is not None else None
    if search is not None and search.surrogate is not None:
        known = search.surrogate
        told = f"{known.kind or 'surrogate'} fitted to {known.points} points"
        if np.isfinite(known.left_out_spearman):
            told += f", rank correlation on points left out {number(known.left_out_spearman)}"
        if known.coverage.predictions:
            told += (
                f"; {100 * known.coverage.reached:.0f} % of {known.coverage.predictions} later measurements lay in "
                f"intervals that asked for {100 * known.coverage.asked:.0f} %"
            )
        st.markdown(plain(told + "."))


def prices(view: View) -> None:
    """Where prices come from, and how wide their intervals are."""
    rows = []
    for name in view.price_metrics:
        table, three = view.price_tables.get(name), view.prices[name]
        half = (three[:, 2] - three[:, 1]) / 2 / np.where(three[:, 0] == 0, np.nan, np.abs(three[:, 0]))
        wide = np.nanmedian(half) if np.isfinite(half).any() else 0.0
        rows.append(
            {
                "price": label(name),
                "source": table.source if table else "",
                "half width of the 95 % interval (median)": "exact" if wide == 0 else f"± {100 * wide:.1f} %",
                "where it comes from": table.provenance if table else "",
            }
        )
    st.dataframe(rows, hide_index=True, width="stretch")
    st.caption("roofline: a lower bound from the data sheet, nothing was measured for this device and shape.")


def search(source: Source, view: View) -> None:
    """Who found the front, how it grew, and the work of the workers."""
    if view.measured:
        st.info("Who found the front and how it grew is told here once the job has ended: until then only it is known.")
        show_work(*history(source.key.partition(":")[2]))
        return
    st.dataframe(
        proposers_table(view),
        hide_index=True,
        width="stretch",
        column_config={
            "share of the work": st.column_config.ProgressColumn(min_value=0.0, max_value=1.0, format="percent")
        },
    )
    metric = next(iter(view.price_metrics), None)
    work: pd.DataFrame | None = None
    attempts: list[float] = []
    seconds = None
    if source.key.startswith("job:"):
        work, attempts = history(source.key.partition(":")[2])
        seconds = moments(view, work)
    if metric is not None:
        left, right = st.columns(2)
        with left:
            st.plotly_chart(growth_figure(view, metric), key="growth", config=QUIET)
        if seconds is not None:
            with right:
                st.plotly_chart(growth_figure(view, metric, seconds), key="growth_seconds", config=QUIET)
        st.caption(plain(f"Quality and {label(metric)}; the box spans what was measured. {growth_words(view, metric)}"))
    if work is not None:
        show_work(work, attempts)
    record = view.front.search if view.front is not None else None
    if record is not None:
        st.subheader("Rounds")
        st.plotly_chart(progress_figure(record), key="rounds", config=QUIET)
        if record.proposers:
            st.plotly_chart(proposers_figure(record), key="proposers", config=QUIET)
        st.caption(plain(f"Ended: {record.ended}."))


def show_work(work: pd.DataFrame, attempts: list[float]) -> None:
    """The work of the workers in time."""
    st.subheader("Workers")
    st.plotly_chart(timeline(work, attempts), key="timeline", config=QUIET)
    st.caption(plain(timeline_words(work, attempts)))


def history(job_id: str) -> tuple[pd.DataFrame, list[float]]:
    """What was measured when and by whom, and when the attempts at the job began."""
    client = require_client()
    try:
        lines = client.log(job_id, structured=True).splitlines()
        job = client.show(job_id)
    except BitfrontError as cause:
        st.error(plain(str(cause)))
        return work_of([]), []
    starts = [float(each["at"]) for each in job.conditions if each["type"] == "Running"]
    return work_of(json.loads(line) for line in lines), starts


def moments(view: View, work: pd.DataFrame) -> FloatArray | None:
    """Seconds since the first measurement for each point, ``None`` if some are not recorded."""
    mine = work[work["split"] == "validation"]
    when = dict(zip(mine["id"], mine["end"], strict=True))
    found = np.array([when.get(digest, np.nan) for digest in view.digests])
    return found - found.min() if len(found) and np.isfinite(found).all() else None


ask_in()
st.title("Trust")
chosen = choose_source()
known = view_or_stop(chosen)
st.caption(plain(headline(known)))
if not len(known):
    st.info("Nothing has been measured yet.")
    st.stop()
tabs = st.tabs(["Proxies", "Predictions", "Prices", "Search"])
with tabs[0]:
    proxies(known)
with tabs[1]:
    surrogate(known)
with tabs[2]:
    prices(known)
with tabs[3]:
    search(chosen, known)
