"""What a job that comes over the network may ask for, and whether it can ever run: decided before it is queued.

Such a job names registered things only: zoo entries, uploads, URLs under allowed beginnings, functions of allowed
modules. It cannot say where outputs go or which cluster runs it. What is not allowed is ``Refused``; what is wrong or
could never run is ``InvalidInput``; both say why in one line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..errors import InvalidInput, Refused
from ..store import Identity, Store, Submission
from . import safe_yaml
from .job import Job, parse_job, within_budget
from .locations import is_upload, is_url
from .prospects import check_prospects, gpus_of, missing_tables
from .settings import Settings
from .uploads import find

_SPLITS = ("calibration", "validation", "holdout")
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z]\w*")
_MOST_ATTEMPTS = 20
_LONGEST_NAME = 200
_LONGEST_FORMULA = 2000
_MOST_FORMATS = 64
_MOST_TEXTS = 1000  # of a list, such as globs


def admit(
    content: str | Mapping[str, Any],
    who: Identity,
    settings: Settings,
    store: Store,
    *,
    key: str | None = None,
    priority: int = 0,
    most_attempts: int = 3,
    most_seconds: float | None = None,
) -> Submission:
    """What to queue for a job as somebody sent it.

    Args:
        content: YAML or JSON, or plain data.
        who: sends it.
        settings: what is allowed.
        store: where uploads and workers are known.
        key: idempotency key.
        priority: higher ones first.
        most_attempts: claims before a job that kills its workers counts as failed.
        most_seconds: of workers' time over all attempts; the budgets of the job and of the service hold as well.

    Returns:
        The submission; its specification has every default written out and its search held to its budget.

    Raises:
        InvalidInput: it breaks the schema, exceeds a bound, or could never run.
        NotFound: an upload that it names is not known.
        Refused: it names something that the sender may not.
    """
    if not who.may("submitter"):
        raise Refused(f"{who.name} is a {who.role}; to submit a job needs a submitter")
    job = within_budget(_read(content, settings), settings.cost_per_hour)
    _check_sources(job, settings, store)
    _check_reach(job, settings)
    seconds = _seconds(job, settings, most_seconds)
    if not 1 <= most_attempts <= _MOST_ATTEMPTS:
        raise InvalidInput(f"attempts: {most_attempts}; give 1 to {_MOST_ATTEMPTS}")
    if job.search.evaluations > settings.most_evaluations:
        raise InvalidInput(
            f"search.evaluations: {job.search.evaluations}; this service allows {settings.most_evaluations}"
        )
    check_prospects(job, settings, store)
    needs = missing_tables(job, store)
    return Submission(
        name=job.title,
        specification=job.plain(),
        owner=who.name,
        key=key,
        priority=priority,
        most_attempts=most_attempts,
        most_seconds=seconds,
        needs=[job.device.name] if job.device.tables == "required" and job.device.name != "cpu" else [],
        waiting=bool(needs),
        gpus=gpus_of(job),
    )


def _read(content: str | Mapping[str, Any], settings: Settings) -> Job:
    """The job by the schema, from bounded plain data."""
    if isinstance(content, str):
        found = safe_yaml.load(content, most_bytes=settings.most_body_bytes, origin="the job")
    else:
        found = dict(content)
        safe_yaml.check(found, safe_yaml.Bounds(), "the job")
    if not isinstance(found, dict):
        raise InvalidInput(f"the job must hold keys such as model, data, space; it is of type {type(found).__name__}")
    job = parse_job(found, "the job")
    if len(job.title) > _LONGEST_NAME or not job.title.isprintable():
        raise InvalidInput(f"name: give up to {_LONGEST_NAME} printable characters")
    if len(job.space.formats) > _MOST_FORMATS:
        raise InvalidInput(f"space.formats: {len(job.space.formats)} formats; at most {_MOST_FORMATS} are allowed")
    if len(job.space.exclude) > _MOST_TEXTS or len(job.space.ties) > _MOST_TEXTS:
        raise InvalidInput(f"space: more than {_MOST_TEXTS} globs or ties")
    return job


def _check_sources(job: Job, settings: Settings, store: Store) -> None:
    """Model, data and formulas come from where they may."""
    from .. import zoo

    model = job.model
    if job.space.architecture is not None:
        from .joint_admission import check_family

        check_family(job.space.architecture)
    for what, name in (("model.zoo", model.zoo), ("data.zoo", job.data.zoo)):
        if name is not None and name not in zoo.names():
            raise InvalidInput(f"{what}: {zoo_refusal(name)}")
    if model.factory is not None:
        _check_factory(model.factory, settings)
    if model.architecture is not None:
        from .architectures import check_architecture

        check_architecture(model.architecture, model.arguments)
    if model.weights is not None:
        _check_file(model.weights, "weights", "model.weights", (".safetensors",), settings, store)
    if model.exported is not None:
        _check_file(model.exported, "exported", "model.exported", (".pt2",), settings, store)
    for split in _SPLITS:
        if isinstance(given := getattr(job.data, split), str):
            _check_file(given, "data", f"data.{split}", (".npz",), settings, store)
    for name in () if job.proxies == "auto" else job.proxies:
        if name.startswith("formula:"):
            _check_formula(name)


def zoo_refusal(name: str) -> str:
    """Why the zoo has no such entry."""
    from .. import zoo

    try:
        zoo.describe(name)
    except InvalidInput as cause:
        return str(cause)
    raise AssertionError(name)


def _check_factory(factory: str, settings: Settings) -> None:
    module = factory.partition(":")[0]
    if module not in settings.allowed_modules:
        allowed = ", ".join(settings.allowed_modules) or "none"
        raise Refused(
            f"model.factory: the module {module[:80]!r} is not one that this service allows ({allowed}); give zoo, "
            "exported, or architecture and weights"
        )
    if not _FUNCTION.fullmatch(factory):
        raise Refused(f"model.factory: {factory[:80]!r} names no public function; give 'package.module:function'")


def _check_file(
    location: str, kind: str, what: str, suffixes: tuple[str, ...], settings: Settings, store: Store
) -> None:
    """A file is an upload of its kind, or lies under an allowed URL."""
    if is_upload(location):
        find(location, kind, what, store)
        return
    if not is_url(location):
        raise Refused(f"{what}: a service reads no local paths; send the file and give upload:SHA256")
    if not is_allowed(location, settings.allowed_urls):
        allowed = ", ".join(settings.allowed_urls) or "none"
        raise Refused(f"{what}: this URL is not under one that this service allows ({allowed}); or send the file")
    if not location.endswith(suffixes):
        raise Refused(f"{what}: only {' or '.join(suffixes)} files are read from URLs")


def is_allowed(url: str, beginnings: tuple[str, ...]) -> bool:
    """Whether a URL lies under one of some beginnings: it goes on after a slash, and never upwards or elsewhere."""
    if "::" in url or "\\" in url or "%" in url or "?" in url or "#" in url or not url.isprintable():
        return False
    if any(part in (".", "..") for part in url.split("/")):
        return False
    return any(url.startswith(f"{beginning.rstrip('/')}/") for beginning in beginnings if "://" in beginning)


def _check_formula(name: str) -> None:
    from ..proxies.formulas.reference import resolved

    if name.strip().endswith(".json"):
        raise Refused("proxies: a service reads no formula files; give formula:EXPRESSION")
    if len(name) > _LONGEST_FORMULA:
        raise InvalidInput(f"proxies: a formula of more than {_LONGEST_FORMULA} characters")
    resolved(name)


def _check_reach(job: Job, settings: Settings) -> None:
    """A job does not choose its cluster or where records go."""
    address, storage = job.workers.address, job.workers.storage
    if address is not None and address != settings.ray_address:
        raise Refused("workers.address: the service decides which cluster runs a job; leave it out")
    if storage is not None and not is_allowed(storage, settings.allowed_urls):
        raise Refused("workers.storage: the service decides where records go; leave it out")


def _seconds(job: Job, settings: Settings, asked: float | None) -> float:
    """The most seconds of workers' time."""
    paid = None
    if job.budget.cost is not None and settings.cost_per_hour is not None:
        paid = 3600 * job.budget.cost / settings.cost_per_hour
    for what, value in (("seconds", asked), ("budget.seconds", job.budget.seconds)):
        if value is not None and not 0 < value <= settings.most_seconds:
            raise InvalidInput(f"{what}: {value:g}; this service allows up to {settings.most_seconds:g}")
    return min(each for each in (asked, job.budget.seconds, paid, settings.most_seconds) if each is not None)
