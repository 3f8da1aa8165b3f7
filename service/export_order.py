"""Orders to export a point of a job: made by the server, which loads no model, carried out by a worker.

An order is a job whose specification is that of the job it exports from, with the key ``export_of``: which job, which
configuration, prepared by which recipe, for which target.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import Conflict, NotFound
from ..files import write_text
from ..space import Configuration
from ..store import Artifacts, Candidate, Job, Store, Submission
from .evidence import evidence_of, options_for

if TYPE_CHECKING:
    from ..search import Progress

KEY = "export_of"


def submission(store: Store, job: Job, point: str, target: str, *, owner: str, key: str | None = None) -> Submission:
    """An order, to be queued.

    Args:
        store: of the job.
        job: whose point.
        point: ``best``, an id of the job's front, or the digest of one of its candidates.
        target: an export target.
        owner: who asks.
        key: idempotency key; by default one that the configuration and the target make.

    Raises:
        InvalidInput: no such target.
        NotFound: no such point.
        Conflict: the job cannot be exported from: it is itself an export, was run elsewhere, searches architectures, or
            has measured nothing.
    """
    from ..exporters.registry import get
    from .joint_front import is_joint

    get(target)
    if KEY in job.specification:
        raise Conflict(f"job {job.id} is itself an export; export from job {job.specification[KEY]['job']}")
    if job.local:
        raise Conflict(f"job {job.id} was run locally; export it there: bitfront export {job.out or 'DIR'}")
    if is_joint(job):
        raise Conflict(
            f"job {job.id} searches architectures: of such a job a service exports only the best, at its end (export: "
            "in the job); any other where it is run: bitfront run JOB.yaml --out DIR, bitfront export DIR --point ID"
        )
    found = job.record.get("search")
    if found is None:
        raise Conflict(f"job {job.id} is {job.state} and has measured nothing yet; export when it has")
    name, config, evidence = _point(store, job, point)
    digest = Configuration.from_dict(config).digest
    content = {each: value for each, value in job.specification.items() if each != "export"}
    order = {"job": job.id, "point": name, "config": config, "recipe": found["recipe"], "target": target}
    options = options_for(target, evidence)
    if options:
        order["options"] = options
    return Submission(
        name=f"{job.name}: {name} to {target}"[:200],
        specification={**content, KEY: order},
        owner=owner,
        key=key or f"export:{job.id}:{digest}:{target}",
        priority=job.priority,
        gpus=job.gpus,
    )


def _point(store: Store, job: Job, point: str) -> tuple[str, dict[str, str], dict[str, Any]]:
    """Name and configuration of a point, and the evidence for it."""
    from .job_front import front_of, solve

    with store.session() as session:
        candidate = session.get(Candidate, (job.id, point))
    if candidate is not None:
        return point, dict(candidate.formats), evidence_of({"job": job.specification}, {"id": point})
    front = front_of(store, job)
    known = {found["id"]: (front | {"job": job.specification}, found) for found in front["points"]}
    final = _final(store, job)
    if final is not None:
        known |= {found["id"]: (final, found) for found in final["points"]}
    wanted = final["best"] if final is not None and point == "best" else point
    if wanted in known:
        document, found = known[wanted]
        return wanted, dict(found["config"]), evidence_of(document, found)
    if point != "best":
        few = ", ".join(list(known)[:12])
        raise NotFound(f"job {job.id} has no point {point!r}; it has best, {few or 'none yet'}")
    best = solve(store, job, {})["best"]
    if best is None:
        raise Conflict(f"job {job.id} is {job.state}, and nothing that it measured meets its constraints; name a point")
    return (
        best["digest"],
        dict(best["config"]),
        evidence_of(front | {"job": job.specification}, best | {"id": best["digest"]}),
    )


def _final(store: Store, job: Job) -> dict[str, Any] | None:
    """The ``front.json`` of a job that has one; reports call its points by other names."""
    from .run_job import read_document

    found = [each for each in Artifacts(store).of(job.id) if each.name == "front.json"]
    return read_document(found[0].location.removesuffix("/front.json")) if found else None


def carry_out(specification: Mapping[str, Any], name: str, store: Store, place: Path, progress: Progress) -> str:
    """Export what an order asks for; the artifact lies in ``export/``, what was checked in ``export.json``.

    Args:
        specification: of the order.
        name: shown in errors.
        store: keeps scales and reports; what it knows is not computed again.
        place: output folder of the order.
        progress: who watches.

    Returns:
        What came of it, in one line.

    Raises:
        InvalidInput: the model or its data cannot be loaded, or the target does not take them.
        ExportMismatch: the artifact does not compute what was measured.
    """
    from ..evaluators import Recipe
    from ..search import Silent, calibrated
    from ..search.stage import Ledger
    from .export_stage import exported
    from .job import parse_job
    from .run_job import load, with_recipe

    order = specification[KEY]
    job = parse_job({each: value for each, value in specification.items() if each not in ("folder", KEY)}, name)
    ledger = Ledger()
    made = load(job, Path(specification.get("folder", ".")), progress, store, ledger)
    made, recipe = with_recipe(job, made, order["recipe"])
    if order["recipe"]:
        recipe = Recipe(**order["recipe"])
    report = exported(
        made,
        Configuration.from_dict(order["config"]),
        calibrated(made.task, made.space, recipe, store, Silent()),
        place / "export" / f"{order['point']}.{order['target']}",
        order["target"],
        batch_norm=recipe.batch_norm,
        store=store,
        ledger=ledger,
        progress=progress,
        options=order.get("options", {}),
    )
    found = report.to_dict() | {"path": str(Path(report.path).relative_to(place))}
    write_text(place / "export.json", json.dumps({"of": order, "report": found}, indent=1, allow_nan=False) + "\n")
    return (
        f"{order['point']} of job {order['job']} to {order['target']}: {report.bytes_on_disk / 1e6:.3f} MB, "
        f"{report.checked}"
    )
