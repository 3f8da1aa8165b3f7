"""One point: its layers, why each has its format, what it saves, how it differs, and how to take it along."""

import streamlit as st
from bitfront.dashboard.choosing import choose_point, choose_source, point_of, view_or_stop
from bitfront.dashboard.downloads import downloads, exports
from bitfront.dashboard.figure_words import fall_words, map_words
from bitfront.dashboard.figures.layer_map import layer_map
from bitfront.dashboard.figures.waterfall import waterfall
from bitfront.dashboard.front_summary import headline, interval_text, point_metrics
from bitfront.dashboard.layers import changes, layer_table, reason
from bitfront.dashboard.reproduction import command_lines, python_lines
from bitfront.dashboard.session import ask_in
from bitfront.dashboard.sources import Source
from bitfront.dashboard.text import plain
from bitfront.dashboard.view import View
from bitfront.service.labels import label, unit

MAP = "layer_map"


def choose(view: View, row: int) -> int:
    """The list box of points; the front first."""
    order = sorted(range(len(view)), key=lambda r: (not view.pareto[r], view.baselines[r] is None, r))
    ids = [view.ids[r] for r in order]
    st.session_state["point_box"] = view.ids[row]
    st.selectbox(
        "Point",
        ids,
        format_func=lambda key: ("best: " if key == view.best else "") + view.label(view.rows[key]),
        key="point_box",
        on_change=lambda: choose_point(st.session_state["point_box"]),
    )
    return row


def predicted_against_measured(view: View, row: int) -> None:
    """Both with their intervals, and whether the measurement lies in the predicted one."""
    measured, (value, low, high) = view.quality["validation"][row], view.predicted[row].tolist()
    told = f"{label(view.metric)}: measured {interval_text(measured, unit(view.metric))}"
    if value == value:
        told += f", predicted {interval_text(view.predicted[row], unit(view.metric))}"
    if high > low:
        told += ": " + ("inside" if low <= measured[0] <= high else "outside") + " the interval of the prediction"
    st.markdown(plain(told + "."))


def selected_layer(view: View) -> int | None:
    """The layer that was clicked in the map."""
    event = st.session_state.get(MAP)
    points = event["selection"]["points"] if event and event.get("selection") else []
    if points and len(points[0].get("customdata", [])) > 1:
        index = int(points[0]["customdata"][1])
        return index if index < len(view.sites) else None
    return None


def layers(view: View, row: int) -> None:
    """The map, with the table of the same, and why the chosen layer is as it is."""
    left, right = st.columns(2)
    proxies = list(view.sensitivities)
    proxy = left.selectbox("Scores of", proxies, key="proxy_box") if proxies else None
    tables = [name for name in view.price_metrics if name in view.price_tables]
    metric = right.selectbox("Price", tables, format_func=label, key="price_box") if tables else None
    index = selected_layer(view)
    st.plotly_chart(
        layer_map(view, row, proxy, metric, index),
        key=MAP,
        on_select="rerun",
        selection_mode="points",
        config={"displaylogo": False},
    )
    st.caption(plain(map_words(view, row, proxy)))
    if proxy is None or metric is None:
        return
    names = view.names
    if index is None:
        st.caption("Click a square, or choose a layer, to read why it has its format.")
    chosen = st.selectbox("Layer", names, index=index or 0, key=f"layer_box/{index}")
    st.markdown(plain(f"{chosen}: {view.config(row)[chosen]}. {reason(view, row, names.index(chosen), proxy, metric)}"))
    if not view.price_tables[metric].additive:
        st.caption(plain(f"{label(metric)} is no sum over layers: the numbers of one layer hold between its own kind."))
    st.dataframe(layer_table(view, row, proxy, metric), hide_index=True, width="stretch")


def difference(view: View, row: int) -> None:
    """To another point."""
    best = [view.best] if view.best in view.rows else []
    every = dict.fromkeys([*best, *(view.ids[r] for r in view.uniform_rows), *view.ids])
    others = [key for key in every if key != view.ids[row]]
    if not others:
        st.info("There is no other point to compare with.")
        return
    other = st.selectbox("Compare with", others, format_func=lambda key: view.label(view.rows[key]), key="other_box")
    table = changes(view, row, view.rows[other])
    st.caption(f"{len(table)} of {len(view.sites)} layers differ.")
    if len(table):
        st.dataframe(table, hide_index=True, width="stretch")


def show(source: Source, view: View) -> None:
    """The whole page of a job with points."""
    row = choose(view, point_of(view))
    predicted_against_measured(view, row)
    st.dataframe(point_metrics(view, row), width="stretch")
    if view.architectures:
        st.subheader("Its network")
        st.dataframe([view.architectures[row]], hide_index=True, width="stretch")
    tabs = st.tabs(["Layers", "Where it saves", "Difference", "Take it along"])
    with tabs[0]:
        layers(view.own(row), row)
    with tabs[1]:
        tables = [name for name in view.price_metrics if name in view.price_tables]
        if not tables:
            st.info("Prices of single layers are not known here: every point has a network of its own.")
        for metric in tables:
            st.plotly_chart(waterfall(view, row, metric), key=f"waterfall/{metric}", config={"displaylogo": False})
            st.caption(plain(fall_words(view, row, metric)))
    with tabs[2]:
        difference(view, row)
    with tabs[3]:
        downloads(view, row)
        exports(source, view, row)
        st.caption("On the command line")
        st.code(command_lines(source.key, view, row), language="bash")
        st.caption("In Python")
        st.code(python_lines(source.key, view, row), language="python")


ask_in()
st.title("Point")
chosen = choose_source()
found = view_or_stop(chosen)
st.caption(plain(headline(found)))
if len(found):
    show(chosen, found)
else:
    st.info("Nothing has been measured yet.")
