"""The runs under the given folders."""

import streamlit as st
from bitfront.dashboard.choosing import choose_source_key
from bitfront.dashboard.loading import load_runs
from bitfront.dashboard.models import runs_table
from bitfront.dashboard.run_folders import roots
from bitfront.dashboard.text import plain

st.title("Runs")
states = load_runs()
where = ", ".join(str(root) for root in roots())
if not states:
    st.info(plain(f"No run in {where}. Start one: bitfront run JOB.yaml --out {roots()[0]}/NAME"))
    st.stop()
st.caption(plain(f"{len(states)} in {where}. Mark a row to open its front."))
table = runs_table(states)
event = st.dataframe(
    table, hide_index=True, width="stretch", on_select="rerun", selection_mode="single-row", key="runs_table"
)
for state in states:
    if state.state == "broken":
        st.warning(plain(f"{state.run.key}: {state.reason}"))
if event.selection.rows:
    choose_source_key(f"run:{table['run'].iloc[event.selection.rows[0]]}")
    st.switch_page("front_page.py")
