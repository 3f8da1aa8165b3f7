"""The page Trust."""

import streamlit as st

st.title("Trust")
