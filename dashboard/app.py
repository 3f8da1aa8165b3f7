"""Entry script of the Streamlit app; start it with ``bitfront dashboard``.

The pages lie beside it and not in a folder ``pages/``: Streamlit serves such a folder by itself until this script has
run once, so that a link to a page would meet the wrong navigation.
"""

from pathlib import Path

import streamlit as st

HERE = Path(__file__).parent

st.set_page_config(page_title="bitfront", layout="wide")
st.navigation(
    [
        st.Page(HERE / "runs_page.py", title="Runs", url_path="runs", default=True),
        st.Page(HERE / "front_page.py", title="Front", url_path="front"),
    ]
).run()
