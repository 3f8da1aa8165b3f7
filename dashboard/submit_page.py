"""The page Submit."""

import streamlit as st

st.title("Submit")
