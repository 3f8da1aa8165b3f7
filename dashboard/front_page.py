"""The front of one run: click a point, see its layers, compare it, take it along."""

import streamlit as st
from bitfront.dashboard.loading import load_runs
from bitfront.dashboard.models import (
    clicked_point,
    configuration_json,
    file_stem,
    front_csv,
    front_parquet,
    point_order,
    point_title,
)
from bitfront.dashboard.run_folders import RunState
from bitfront.dashboard.text import plain
from bitfront.service.front_document import Front, Point
from bitfront.service.front_figure import front_figure
from bitfront.service.labels import limit_text, price_label
from bitfront.service.layer_figures import layer_map, points_map
from bitfront.service.tables import comparison, difference


def choose_run(states: list[RunState]) -> RunState:
    """The run of the list box; the link's ``run`` comes first."""
    keys = [state.run.key for state in states]
    _start_with("run", st.query_params.get("run"), keys)
    key = st.selectbox("Run", keys, key="run", on_change=_forget_point)
    st.query_params["run"] = key
    return states[keys.index(key)]


def choose_point(front: Front, price: str) -> Point:
    """The point of the list box, which a click on the figure sets."""
    ids = point_order(front, price)
    _start_with("point", st.query_params.get("point"), ids)
    chosen = st.selectbox(
        "Point", ids, key="point", format_func=lambda key: point_title(front, front.by_id[key], price)
    )
    st.query_params["point"] = chosen
    return front.by_id[chosen]


def _start_with(key: str, wanted: str | None, options: list[str]) -> None:
    """Set a list box before it is drawn: keep what is chosen, else what the link wants, else the first option."""
    if st.session_state.get(key) not in options:
        st.session_state[key] = wanted if wanted in options else options[0]


def _forget_point() -> None:
    st.session_state.pop("point", None)
    if "point" in st.query_params:
        del st.query_params["point"]


def _take_click() -> None:
    """Callback of the figure: a click chooses the point; an emptied selection changes nothing."""
    chosen = clicked_point(st.session_state.get("front_chart"))
    if chosen is not None:
        st.session_state["point"] = chosen


def show_front(front: Front) -> tuple[Point, str]:
    """The figure with its controls; returns the chosen point and price."""
    left, middle, right = st.columns([1, 1, 2], vertical_alignment="bottom")
    with left:
        price = st.selectbox("Price", front.price_metrics, format_func=lambda name: price_label(front, name))
    with middle:
        splits = {"validation": "validation", "holdout": "held-out"}
        split = st.selectbox("Quality measured on", list(splits), format_func=lambda name: splits[name])
    with right:
        point = choose_point(front, price)
    st.plotly_chart(
        front_figure(front, price, split, selected=point.id),
        key="front_chart",
        on_select=_take_click,
        selection_mode="points",
    )
    st.caption(
        "Click a point to choose it. Bars are intervals, grey points are dominated, hollow ones miss a constraint."
    )
    return point, price


def show_point(front: Front, point: Point, price: str) -> None:
    """Numbers against uniform, the layer map, what differs, and the map of the whole front."""
    st.subheader(plain(f"{point.label} in numbers"))
    best = [front.best_point] if front.best_point else []
    st.dataframe(comparison(front, [point, *best, *front.baselines]).T, width="stretch")
    layers, changes, along = st.tabs(["Format of every layer", "Difference", "Along the front"])
    with layers:
        st.plotly_chart(layer_map(front, point), key="layer_map")
    with changes:
        show_difference(front, point, [other for other in [*best, *front.baselines] if other.id != point.id])
    with along:
        st.caption("Pareto-optimal and uniform points by rising price; ★ is the best.")
        st.plotly_chart(points_map(front, price), key="points_map")


def show_difference(front: Front, point: Point, others: list[Point]) -> None:
    """The layers in which the point differs from the best or a uniform one."""
    if not others:
        st.info("There is no other point to compare with.")
        return
    titles = {other.id: other.label for other in others}
    other = front.by_id[st.selectbox("Compare with", list(titles), format_func=lambda key: titles[key])]
    table = difference(front, point, other)
    st.caption(f"{len(table)} of {len(front.model.sites)} layers differ.")
    if len(table):
        st.dataframe(table, hide_index=True, width="stretch")


def show_downloads(front: Front, point: Point) -> None:
    """Buttons for the configuration and the front."""
    stem = file_stem(front.name)
    columns = st.columns(3)
    files = [
        ("Configuration (JSON)", configuration_json(point), f"{stem}_{file_stem(point.id)}.json", "application/json"),
        ("Front (CSV)", front_csv(front), f"{stem}_front.csv", "text/csv"),
        ("Front (Parquet)", front_parquet(front), f"{stem}_front.parquet", "application/vnd.apache.parquet"),
    ]
    for column, (title, data, name, mime) in zip(columns, files, strict=True):
        column.download_button(title, data, file_name=name, mime=mime, width="stretch")


def show_run(front: Front) -> None:
    """The whole page of a run that has a front."""
    limits = ", ".join(limit_text(name, value) for name, value in front.constraints.items()) or "no constraints"
    size = f"{len(front.model.sites)} layers, {len(front.points)} points"
    st.caption(plain(f"{front.model.name}, {size}, {limits}, {front.created}"))
    if front.best_reason:
        best = front.best_point.label if front.best_point else "none"
        st.markdown(plain(f"Best: {best}; {front.best_reason.rstrip('.')}."))
    if not front.points or not front.price_metrics:
        st.info("The run holds no measured point yet.")
        return
    point, price = show_front(front)
    show_downloads(front, point)
    show_point(front, point, price)


st.title("Front")
found = load_runs()
if not found:
    st.info("No run yet.")
    st.stop()
state = choose_run(found)
if state.front is not None:
    show_run(state.front)
elif state.state == "broken":
    st.error(plain(f"{state.state}: {state.reason}"))
else:
    st.info(plain(f"{state.state}: {state.reason}"))
