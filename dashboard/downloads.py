"""Files of a point: its configuration and the front at once, exports by a job of the server."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from ..errors import BitfrontError
from ..exporters import registry
from ..service.client import Client
from ..service.client_views import ENDED, JobView
from .models import file_stem
from .session import require_client
from .sources import Source
from .text import plain
from .view import View

if TYPE_CHECKING:
    import pandas as pd


def configuration_json(view: View, row: int) -> str:
    """``{site: format}`` as ``Configuration.from_json`` reads it."""
    return json.dumps(dict(sorted(view.config(row).items())), indent=2) + "\n"


def points_frame(view: View) -> pd.DataFrame:
    """All measured points: id, origin, quality and prices with intervals, a column for each layer."""
    import pandas as pd

    columns: dict[str, object] = {
        "id": view.ids,
        "origin": view.origins,
        "pareto": view.pareto,
        "feasible": view.feasible,
    }
    for split, found in view.quality.items():
        for index, name in enumerate(("", "_low", "_high")):
            columns[f"{view.metric}_{split}{name}"] = found[:, index]
    for metric, found in view.prices.items():
        for index, name in enumerate(("", "_low", "_high")):
            columns[f"{metric}{name}"] = found[:, index]
    names = np.array([*view.formats, None], dtype=object)  # -1, no such layer, is the last
    layers = {site.name: names[view.choices[:, index]] for index, site in enumerate(view.sites)}
    return pd.DataFrame({**columns, **layers})


def downloads(view: View, row: int) -> None:
    """Buttons for the configuration and the front."""
    stem = f"{file_stem(view.name)}_{file_stem(view.label(row))}"
    columns = st.columns(3)
    columns[0].download_button(
        "Configuration (JSON)",
        configuration_json(view, row),
        file_name=f"{stem}.json",
        mime="application/json",
        width="stretch",
        key="download_json",
    )
    columns[1].download_button(
        "All points (CSV)",
        lambda: points_frame(view).to_csv(index=False),
        file_name=f"{file_stem(view.name)}_points.csv",
        mime="text/csv",
        width="stretch",
        key="download_csv",
    )
    columns[2].download_button(
        "All points (Parquet)",
        lambda: _parquet(view),
        file_name=f"{file_stem(view.name)}_points.parquet",
        mime="application/vnd.apache.parquet",
        width="stretch",
        key="download_parquet",
    )


def _parquet(view: View) -> bytes:
    content = io.BytesIO()
    points_frame(view).to_parquet(content, index=False)
    return content.getvalue()


def exports(source: Source, view: View, row: int) -> None:
    """Have the point exported and checked back; its files once that is done."""
    st.subheader("Export")
    if not source.key.startswith("job:"):
        st.caption("A run in a folder is exported on the command line, see below.")
        return
    if view.architectures:
        st.caption(
            "Of a search of architectures a server exports the best point alone, at its end (export: in the job). Any "
            "other is exported from the genome with the family at hand, see below."
        )
        return
    client, job_id = require_client(), source.key.partition(":")[2]
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    target = left.selectbox("Target", registry.names(), key="export_target")
    key = f"export/{job_id}/{view.ids[row]}/{target}"
    if right.button("Export", key="export", type="primary", width="stretch"):
        try:
            st.session_state[key] = client.export(job_id, view.ids[row], target).id
        except BitfrontError as cause:
            st.error(plain(str(cause)))
    if key in st.session_state:
        _follow(client, st.session_state[key])


def _follow(client: Client, job_id: str) -> None:
    """The exporting job until it has ended, then its files."""

    def show() -> None:
        try:
            job = client.show(job_id)
        except BitfrontError as cause:
            st.error(plain(str(cause)))
            return
        if job.state not in ENDED:
            stage = job.progress.get("stage") or job.state
            st.caption(plain(f"Export job {job.id}: {stage} …"))
        elif not st.session_state.get(f"ended/{job_id}"):
            st.session_state[f"ended/{job_id}"] = True
            st.rerun()

    if st.session_state.get(f"ended/{job_id}"):
        _files(client, client.show(job_id))
    else:
        st.fragment(show, run_every=1.0)()


def _files(client: Client, job: JobView) -> None:
    if job.state != "succeeded":
        st.error(plain(f"The export {job.state}: {job.reason}"))
        return
    st.success(plain(f"Exported and checked back by job {job.id}."))
    for file in client.artifacts(job.id):
        st.download_button(
            plain(f"{file.name} ({file.bytes / 1e6:.2f} MB)"),
            lambda name=file.name: _content(client, job.id, name),
            file_name=file.name.rpartition("/")[2],
            key=f"file/{job.id}/{file.name}",
        )


def _content(client: Client, job_id: str, name: str) -> bytes:
    """A file of a job, whole and checked against its SHA-256."""
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        return client.download(job_id, name, Path(folder) / "file").read_bytes()
