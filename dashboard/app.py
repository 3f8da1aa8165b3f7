"""Entry script of the Streamlit app; start it with ``bitfront dashboard``.

The pages lie beside it and not in a folder ``pages/``: Streamlit serves such a folder by itself until this script has
run once, so that a link to a page would meet the wrong navigation.
"""

from pathlib import Path

import streamlit as st
from bitfront.dashboard.session import account, server

HERE = Path(__file__).parent

st.set_page_config(page_title="bitfront", layout="wide")
jobs = [
    st.Page(HERE / "jobs_page.py", title="Jobs", url_path="jobs", default=True),
    st.Page(HERE / "submit_page.py", title="Submit", url_path="submit"),
]
runs = [st.Page(HERE / "runs_page.py", title="Runs", url_path="runs", default=server() is None)]
decide = [
    st.Page(HERE / "front_page.py", title="Front", url_path="front"),
    st.Page(HERE / "point_page.py", title="Point", url_path="point"),
    st.Page(HERE / "trust_page.py", title="Trust", url_path="trust"),
    st.Page(HERE / "compare_page.py", title="Compare", url_path="compare"),
]
hardware = [st.Page(HERE / "devices_page.py", title="Devices", url_path="devices")]
groups = {"Work": [*(jobs if server() else []), *runs], "Decide": decide, "Hardware": hardware}
page = st.navigation(groups)
with st.sidebar:
    account()
page.run()
