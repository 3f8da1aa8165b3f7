"""Entry script of the Streamlit app; start it with ``bitfront dashboard``."""

from pathlib import Path

import streamlit as st

PAGES = Path(__file__).parent / "pages"

st.set_page_config(page_title="bitfront", layout="wide")
st.navigation(
    [
        st.Page(PAGES / "runs.py", title="Runs", url_path="runs", default=True),
        st.Page(PAGES / "front.py", title="Front", url_path="front"),
    ]
).run()
