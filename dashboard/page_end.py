"""The end of a page in the middle of its script."""

from __future__ import annotations

from typing import NoReturn

import streamlit as st


def end_page() -> NoReturn:
    """Show what there is and run nothing more of the page."""
    st.stop()
    raise RuntimeError("Streamlit did not stop the page")
