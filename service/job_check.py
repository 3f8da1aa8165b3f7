"""A job before it is submitted: what is wrong with it and on which line, and how long it will take."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from ..errors import BitfrontError, InvalidInput
from ..store import Identity, Queue, Store
from . import safe_yaml
from .admission import admit
from .job import Job, violations
from .settings import Settings

_GO_BY = 5  # finished jobs
_LOOK_AT = 200  # jobs, the newest
_QUOTED = re.compile(r"'([^']+)'")
_PLACE = re.compile(r"(?:the job: )?([a-z_]+(?:\.[\w-]+)*)[ :=]")


@dataclass(frozen=True)
class Problem:
    """Something that keeps a job from being queued.

    Attributes:
        message: one line.
        line: from 1; ``None`` where it is not about one place.
        column: from 1.
    """

    message: str
    line: int | None = None
    column: int | None = None


@dataclass(frozen=True)
class Estimate:
    """How long a job will work.

    Attributes:
        seconds: median of the jobs gone by, scaled to the evaluations asked for.
        low: of the fastest of them.
        high: of the slowest.
        jobs: how many there were; 0: nothing is known, and the others are ``None``.
    """

    seconds: float | None = None
    low: float | None = None
    high: float | None = None
    jobs: int = 0


@dataclass(frozen=True)
class Checked:
    """A job that was looked at.

    Attributes:
        problems: what keeps it from being queued; empty: it would be.
        name: as it would be shown.
        waits_for: devices without tables that it would wait for.
        estimate: of the work.
    """

    problems: tuple[Problem, ...]
    name: str = ""
    waits_for: tuple[str, ...] = ()
    estimate: Estimate = Estimate()


def check(text: str, who: Identity, settings: Settings, store: Store) -> Checked:
    """Look at a job as ``admit`` does, and queue nothing.

    Args:
        text: YAML or JSON.
        who: would send it.
        settings: what is allowed.
        store: where uploads, workers and finished jobs are known.

    Returns:
        All violations of the schema with their lines; else the first reason against it, if there is one.
    """
    try:
        content = safe_yaml.load(text, most_bytes=settings.most_body_bytes, origin="the job")
    except InvalidInput as cause:
        return Checked((_with_place(str(cause)),))
    if not isinstance(content, dict):
        return Checked((Problem("the job must hold keys such as model, data, space", 1, 1),))
    found = [Problem(message, *_mark(text, path, message)) for path, message in violations(content)]
    if found:
        return Checked(tuple(found))
    try:
        submission = admit(text, who, settings, store)
    except BitfrontError as cause:
        place = _PLACE.match(str(cause))
        return Checked((Problem(str(cause), *_mark(text, place.group(1).split(".") if place else [], str(cause))),))
    job = Job.model_validate(content)
    return Checked((), submission.name, tuple(submission.needs) if submission.waiting else (), estimate(job, store))


def estimate(job: Job, store: Store) -> Estimate:
    """Seconds of work, from finished jobs of the same model, data and device, scaled by the evaluations.

    A search also calibrates, scores and reports, which does not grow with the evaluations: a longer one than those gone
    by is estimated too high.
    """
    mine = job.plain()
    seconds = []
    for gone in Queue(store).list(states=("succeeded",), count=_LOOK_AT):
        theirs = gone.specification
        if any(theirs.get(part) != mine.get(part) for part in ("model", "data", "device")):
            continue
        made = gone.progress.get("evaluated")
        if made and gone.seconds_used > 0:
            seconds.append(gone.seconds_used * job.search.evaluations / made)
        if len(seconds) == _GO_BY:
            break
    if not seconds:
        return Estimate()
    return Estimate(statistics.median(seconds), min(seconds), max(seconds), len(seconds))


def _with_place(message: str) -> Problem:
    found = re.search(r"line (\d+)(?:, column (\d+))?", message)
    return Problem(message, *(int(each) if each else None for each in found.groups())) if found else Problem(message)


def _mark(text: str, path: Sequence[Any], message: str) -> tuple[int | None, int | None]:
    """Where a mistake is: at a value that the message quotes below the path, else at the path's last key written down.

    Returns:
        Line and column from 1; ``None`` where the mistake has no place.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:  # JSON that is no YAML: the text as a whole
        return None, None
    mark = None
    for part in path:
        if isinstance(node, yaml.MappingNode):
            pair = next(((key, value) for key, value in node.value if key.value == str(part)), None)
            if pair is None:
                break
            mark, node = pair[0].start_mark, pair[1]
        elif isinstance(node, yaml.SequenceNode) and str(part).isdigit() and int(part) < len(node.value):
            node = node.value[int(part)]
            mark = node.start_mark
    quoted = set(_QUOTED.findall(message))
    value = next((each for each in _scalars(node) if each.value in quoted), None)
    mark = value.start_mark if value is not None else mark
    return (mark.line + 1, mark.column + 1) if mark is not None else (None, None)


def _scalars(node: Any) -> Iterator[yaml.ScalarNode]:
    """All values below a node, keys left out."""
    if isinstance(node, yaml.ScalarNode):
        yield node
    elif isinstance(node, yaml.SequenceNode):
        for each in node.value:
            yield from _scalars(each)
    elif isinstance(node, yaml.MappingNode):
        for _, each in node.value:
            yield from _scalars(each)
