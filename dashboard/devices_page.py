"""Devices: what was measured on each, what answers for which kernel, and measurements that users send."""

import tempfile
from pathlib import Path
from typing import Any

import streamlit as st
from bitfront.dashboard.device_model import coverage, devices_table, kernels_table, tables_table
from bitfront.dashboard.figure_words import coverage_words
from bitfront.dashboard.session import ask_in, require_client, server, trouble
from bitfront.dashboard.text import plain
from bitfront.errors import BitfrontError
from bitfront.service.device_document import device_detail, device_rows


def detail(name: str) -> dict[str, Any]:
    """A device in full, from the server or from this machine's registry."""
    return require_client().device(name) if server() else device_detail(name)


def upload() -> None:
    """Send a table of measurements to the server."""
    st.subheader("Send measurements")
    st.caption("A .csv or .parquet that `bitfront measure` wrote; jobs that waited for its device go on.")
    with st.form("table", clear_on_submit=True, border=True):
        file = st.file_uploader("Table", type=["csv", "parquet"], key="table_file")
        sent = st.form_submit_button("Send", type="primary")
    if sent and file is None:
        st.warning("Choose a file first.")
    elif sent and file is not None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / ("table.parquet" if file.name.endswith(".parquet") else "table.csv")
            path.write_bytes(file.getvalue())
            try:
                digest = require_client().upload(path, "table")
            except BitfrontError as cause:
                st.error(plain(str(cause)))
            else:
                st.success(plain(f"The server has it: SHA-256 {digest[:16]}…"))
    try:
        known = require_client().tables()
    except BitfrontError as cause:
        trouble(cause)
    if known:
        st.dataframe(
            [
                {
                    "name": t.get("name"),
                    "owner": t.get("owner"),
                    "MB": t.get("bytes", 0) / 1e6,
                    "SHA-256": t["sha256"][:16],
                }
                for t in known
            ],
            hide_index=True,
            width="stretch",
        )


ask_in()
st.title("Devices")
try:
    rows = require_client().devices() if server() else device_rows()
except BitfrontError as cause:
    trouble(cause)
table = devices_table(rows)
st.caption(
    "Mark a device. measured: latency comes from tables of timed kernels; roofline: only a bound from the data sheet."
)
event = st.dataframe(
    table, hide_index=True, width="stretch", on_select="rerun", selection_mode="single-row", key="devices_table"
)
names = [row["device"] for row in rows]
marked = str(table["device"].iloc[event.selection.rows[0]]) if event.selection.rows else st.query_params.get("device")
if marked in names:
    st.query_params["device"] = marked
    try:
        found = detail(marked)
    except BitfrontError as cause:
        trouble(cause)
    st.subheader(plain(marked))
    st.caption(plain(str(found.get("reference") or "")))
    st.plotly_chart(coverage(found), key="coverage", config={"displaylogo": False})
    st.caption(plain(coverage_words(found)))
    if found["kernels"]:
        st.dataframe(kernels_table(found), hide_index=True, width="stretch")
    mine = next(row for row in rows if row["device"] == marked)
    if mine["tables"]:
        st.caption("All tables of this device")
        st.dataframe(tables_table(mine), hide_index=True, width="stretch")
if server():
    upload()
