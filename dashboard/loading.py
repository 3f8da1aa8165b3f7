"""Reading for the pages, cached by path, modification time and size (kept in memory, nothing is pickled)."""

from __future__ import annotations

import streamlit as st

from ..service.front_document import Front
from .joint_front import read_any_front
from .run_folders import Reader, RunState, find_runs, read_run, roots


def _load(path: str, modified_ns: int, size: int) -> Front:
    del modified_ns, size  # only keys of the cache
    return read_any_front(path)


_cached: Reader = st.cache_resource(max_entries=64, show_spinner=False)(_load)


def load_runs() -> list[RunState]:
    """Every run below the given folders, with its front if it can be read."""
    return [read_run(run, _cached) for run in find_runs(roots())]
