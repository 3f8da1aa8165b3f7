"""The page Devices."""

import streamlit as st

st.title("Devices")
