"""Submit a job: by a form, or as YAML; checked line by line, with an estimate before it starts."""

import tempfile
from pathlib import Path
from typing import Any

import streamlit as st
from bitfront import zoo
from bitfront.dashboard.choosing import choose_source_key
from bitfront.dashboard.job_form import QUALITIES, STARTING_FORMATS, Form, job_of, marked_lines, yaml_of
from bitfront.dashboard.job_model import duration
from bitfront.dashboard.page_end import end_page
from bitfront.dashboard.session import require_client, trouble
from bitfront.dashboard.text import plain
from bitfront.errors import BitfrontError
from bitfront.exporters import registry
from bitfront.service.client import Client
from bitfront.service.format_table import format_rows
from bitfront.service.labels import PRICE_LABELS, label

UPLOAD = "an exported program (.pt2)"
PRICES = [name for name in PRICE_LABELS if name != "macs"]


def sent(client: Client, file: Any, kind: str, suffix: str) -> str | None:
    """SHA-256 of an uploaded file that the server has taken, ``None`` where there is none or it refuses."""
    if file is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"file{suffix}"
        path.write_bytes(file.getvalue())
        try:
            return client.upload(path, kind)
        except BitfrontError as cause:
            st.error(plain(f"{file.name}: {cause}"))
            return None


def source(client: Client) -> tuple[str, bool, dict[str, str]] | None:
    """Model and data: a zoo entry with its own, or uploads."""
    chosen = st.selectbox("Model", [*zoo.names(), UPLOAD], key="form_model")
    if chosen != UPLOAD:
        st.caption(plain(zoo.describe(chosen).description))
        return chosen, False, {}
    model = sent(client, st.file_uploader("Exported program", ["pt2"], key="form_pt2"), "exported", ".pt2")
    columns = st.columns(2)
    data = {}
    for column, split in zip(columns, ("calibration", "validation"), strict=True):
        file = column.file_uploader(f"{split.capitalize()} data (arrays inputs, targets)", ["npz"], key=f"form_{split}")
        if digest := sent(client, file, "data", ".npz"):
            data[split] = digest
    if model is None or len(data) < 2:
        st.info("Give the program (`torch.export.save`), calibration and validation data.")
        return None
    return model, True, data


def fields(client: Client) -> str | None:
    """The form; the YAML of what is filled in."""
    found = source(client)
    if found is None:
        return None
    model, exported, data = found
    name = st.text_input("Name", value="", placeholder="the model's", key="form_name")
    names = [row["format"] for row in format_rows(everything=True)]
    formats = st.multiselect("Formats offered", names, default=list(STARTING_FORMATS), key="form_formats")
    columns = st.columns(4)
    quality = columns[0].selectbox("Quality", QUALITIES, key="form_quality")
    devices = [row["device"] for row in client.devices()]
    device = columns[1].selectbox("Device", devices, index=devices.index("cpu"), key="form_device")
    batch = columns[2].number_input("Batch", 1, 65536, 1, key="form_batch")
    targets = [None, *registry.names()]
    target = columns[3].selectbox(
        "Export",
        targets,
        index=targets.index("onnx"),
        format_func=lambda key: "none" if key is None else key,
        key="form_target",
    )
    objectives = st.multiselect(
        "Minimise beside the quality", PRICES, default=["latency_ms", "size_mb"], format_func=label, key="form_prices"
    )
    budgets = {}
    if objectives:
        st.caption("Budgets; 0 asks for none.")
        for column, metric in zip(st.columns(len(objectives)), objectives, strict=True):
            most = column.number_input(
                f"{label(metric)} at most", min_value=0.0, value=0.0, key=f"form_budget/{metric}"
            )
            if most > 0:
                budgets[metric] = float(most)
    columns = st.columns(2)
    evaluations = columns[0].number_input("Evaluations", 1, 100_000, 48, key="form_evaluations")
    seed = columns[1].number_input("Seed", 0, 2**31 - 1, 0, key="form_seed")
    form = Form(
        name.strip(), model, exported, data, formats, quality, device, int(batch), objectives, budgets,
        int(evaluations), int(seed), target,
    )  # fmt: skip
    return yaml_of(job_of(form))


def pasted() -> str | None:
    """YAML from a file or a box."""
    file = st.file_uploader("Job file", ["yaml", "yml", "json"], key="yaml_file")
    if file is not None:
        try:
            return str(file.getvalue().decode())
        except UnicodeDecodeError:
            st.error("The file is not UTF-8 text.")
            return None
    text = st.text_area("or paste it here", height=320, key="yaml_text", placeholder="model: {zoo: digits_resnet20}\n…")
    return text if text.strip() else None


def estimate_text(found: dict[str, Any]) -> str:
    """How long the job will work."""
    jobs = found["jobs"]
    if not jobs:
        return "No job of this model, data and device has finished yet, so there is no estimate of the time."
    spread = f" ({duration(found['low'])} to {duration(found['high'])})" if jobs > 1 else ""
    noun = "job" if jobs == 1 else "jobs"
    return f"About {duration(found['seconds'])} of work{spread}, going by {jobs} finished {noun}."


client = require_client()
st.title("Submit a job")
way = st.segmented_control("How", ["Form", "YAML"], default="Form", key="submit_way")
try:
    job = fields(client) if way != "YAML" else pasted()
except BitfrontError as cause:
    trouble(cause)
if job is None:
    end_page()
try:
    checked = client.check(job)
except BitfrontError as cause:
    trouble(cause)
problems = checked["problems"]
if problems:
    for problem in problems:
        where = f"line {problem['line']}, column {problem['column']}: " if problem["line"] else ""
        st.error(plain(where + problem["message"]))
    st.code(marked_lines(job, problems), language=None)
    end_page()
st.success(plain(f"The server would take it as {checked['name']}. {estimate_text(checked['estimate'])}"))
if checked["waits_for"]:
    st.warning(plain(f"It would wait for measured tables of {', '.join(checked['waits_for'])}."))
with st.expander("The job", expanded=way != "YAML"):
    st.code(job, language="yaml")
if st.button("Submit", key="submit", type="primary"):
    try:
        made = client.submit(job)
    except BitfrontError as cause:
        st.error(plain(str(cause)))
        end_page()
    choose_source_key(f"job:{made.id}")
    st.switch_page("jobs_page.py")
