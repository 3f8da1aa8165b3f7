"""The jobs of the server: filter, watch, pause, resume, cancel, retry."""

import streamlit as st
from bitfront.dashboard.choosing import SOURCE, choose_source_key
from bitfront.dashboard.job_model import ACTIONS, STATES, conditions_table, fraction, jobs_table, stage_text, tail
from bitfront.dashboard.session import require_client, trouble
from bitfront.dashboard.text import plain
from bitfront.errors import BitfrontError
from bitfront.service.client import Client
from bitfront.service.client_views import ENDED, JobView

MOST = 200
LIVE_SECONDS = 2.0


def filtered(client: Client) -> list[JobView]:
    """The newest jobs that the filters let through."""
    left, middle, right = st.columns([2, 1, 2])
    name = left.text_input("Name contains", key="filter_name")
    owner = middle.text_input("Owner", key="filter_owner")
    states = right.multiselect("State", STATES, key="filter_states", placeholder="all")
    found: list[JobView] = []
    one = states[0] if len(states) == 1 else None
    for job in client.jobs(state=one, owner=owner.strip() or None, name=name.strip()):
        if not states or job.state in states:
            found.append(job)
        if len(found) == MOST:
            st.caption(f"The newest {MOST} are shown; narrow the filters for others.")
            break
    return found


def act(client: Client, job_id: str, verb: str) -> None:
    """Callback of a button: ask the server; a refusal is kept for the page to show."""
    try:
        getattr(client, verb)(job_id)
        st.session_state["job_notice"] = f"asked to {verb} job {job_id}"
        st.session_state.pop("job_error", None)
    except BitfrontError as cause:
        st.session_state["job_error"] = str(cause)


def show_job(client: Client, job_id: str) -> None:
    """State, progress, buttons, history, log and files of one job."""
    job = client.show(job_id)
    st.subheader(plain(job.name))
    st.markdown(plain(f"{job.state}: {job.reason}" if job.reason else job.state))
    if job.state not in ENDED:
        done = fraction(job)
        st.progress(done or 0.0, text=plain(stage_text(job) or "waiting for a worker"))
    buttons = st.columns(4)
    for place, verb in zip(buttons, ACTIONS.get(job.state, ()), strict=False):
        place.button(verb.capitalize(), key=f"act/{verb}", on_click=act, args=(client, job.id, verb), width="stretch")
    if buttons[3].button("Open its front", key="open_front", type="primary", width="stretch"):
        choose_source_key(f"job:{job.id}")
        st.switch_page("front_page.py")
    if error := st.session_state.pop("job_error", None):
        st.error(plain(error))
    if notice := st.session_state.pop("job_notice", None):
        st.toast(plain(notice))
    history, log, files, asked = st.tabs(["History", "Log", "Files", "What was asked"])
    with history:
        st.caption(plain(f"attempt {job.attempt} of {job.most_attempts}, owner {job.owner or 'nobody'}"))
        st.dataframe(conditions_table(job), hide_index=True, width="stretch")
    with log:
        text = tail(client.log(job.id))
        st.code(text or "nothing yet", language=None)
    with files:
        found = client.artifacts(job.id)
        if found:
            st.dataframe(
                {"file": [f.name for f in found], "MB": [f.bytes / 1e6 for f in found]},
                hide_index=True,
                width="stretch",
            )
        else:
            st.caption("none yet")
    with asked:
        st.json(dict(job.specification), expanded=2)


def show() -> None:
    """Table and the chosen job."""
    client = require_client()
    try:
        jobs = filtered(client)
    except BitfrontError as cause:
        trouble(cause)
    if not jobs and any(st.session_state.get(f"filter_{name}") for name in ("name", "owner", "states")):
        st.info("No job passes these filters.")
        return
    if not jobs:
        st.info("No job yet: submit one on the page Submit, or with `bitfront submit JOB.yaml`.")
        return
    event = st.dataframe(
        jobs_table(jobs),
        hide_index=True,
        width="stretch",
        on_select="rerun",
        selection_mode="single-row",
        key="jobs_table",
        column_config={
            "progress": st.column_config.ProgressColumn(min_value=0.0, max_value=1.0, format="percent"),
            "reason": st.column_config.TextColumn(width="large"),
        },
    )
    rows = event.selection.rows
    if rows:
        choose_source_key(f"job:{jobs[rows[0]].id}")
    kind, _, key = st.session_state.get(SOURCE, st.query_params.get(SOURCE, "")).partition(":")
    if kind == "job" and any(job.id == key for job in jobs):
        try:
            show_job(client, key)
        except BitfrontError as cause:
            st.error(plain(str(cause)))
    else:
        if kind == "job":
            st.info(plain(f"Job {key} is not among those shown; change the filters, or it was removed."))
        st.caption("Mark a row to see the job.")


require_client()
st.title("Jobs")
st.fragment(show, run_every=LIVE_SECONDS)()
