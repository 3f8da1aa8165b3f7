"""Several jobs on one plot: devices, proxies, seeds."""

import streamlit as st
from bitfront.dashboard.choosing import SOURCE
from bitfront.dashboard.compare_model import compared, shared_prices
from bitfront.dashboard.figure_words import compare_words
from bitfront.dashboard.figures.compare import fronts
from bitfront.dashboard.session import ask_in, trouble
from bitfront.dashboard.sources import load_view, sources
from bitfront.dashboard.text import plain
from bitfront.errors import BitfrontError
from bitfront.service.labels import label

MOST = 8
FORMATS = {name: st.column_config.NumberColumn(format="%.4g") for name in ("best quality", "cheapest", "hypervolume")}

ask_in()
st.title("Compare")
try:
    found = {source.key: source for source in sources()}
except BitfrontError as cause:
    trouble(cause)
if not found:
    st.info("There is no job and no run yet.")
    st.stop()
wanted = [key for key in st.query_params.get_all("with") if key in found]
current = st.session_state.get(SOURCE)
start = wanted or ([current] if current in found else [])
chosen = st.multiselect(
    "Jobs and runs",
    list(found),
    default=start,
    format_func=lambda key: found[key].title,
    key="compare_box",
    max_selections=MOST,
    placeholder="choose two or more",
)
st.query_params["with"] = chosen
views = []
for key in chosen:
    try:
        view, why = load_view(key)
    except BitfrontError as cause:
        view, why = None, str(cause)
    if view is None or not len(view):
        st.warning(plain(f"{found[key].title}: {why or 'nothing has been measured yet'}"))
    else:
        views.append((found[key].title, view))
metrics = {view.metric for _, view in views}
if len(metrics) > 1:
    st.error(plain(f"These jobs judge quality differently ({', '.join(sorted(metrics))}); compare those of one kind."))
    st.stop()
prices = shared_prices([view for _, view in views])
if not views:
    st.info("Choose jobs to compare.")
    st.stop()
if not prices:
    st.error("These jobs have no price in common.")
    st.stop()
left, right = st.columns(2)
metric = left.selectbox("Across", prices, format_func=label, key="compare_price")
split = right.segmented_control("Quality on", ["validation", "holdout"], default="validation", key="compare_split")
split = split or "validation"
titles = [title for title, _ in views]
st.plotly_chart(
    fronts([v for _, v in views], titles, metric, split), key="compare_chart", config={"displaylogo": False}
)
st.caption(plain(compare_words(titles, [v for _, v in views], metric, split)))
st.dataframe(
    compared([view for _, view in views], metric, split), hide_index=True, width="stretch", column_config=FORMATS
)
st.caption(
    "Hypervolume: the dominated share of the box that all of these jobs span together; it changes with the choice of "
    "jobs. Latencies of different devices are each of their own device."
)
