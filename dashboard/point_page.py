"""The page Point."""

import streamlit as st

st.title("Point")
