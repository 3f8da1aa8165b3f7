"""The page Jobs."""

import streamlit as st

st.title("Jobs")
