"""Metrics for Prometheus: the server's own requests, and the queue as the database has it when it is asked."""

from __future__ import annotations

import time
from collections.abc import Iterator

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from sqlalchemy import func, or_, select
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...store import JOB_STATES, Condition, Event, Job, Queue, Store, Workers
from ...store.clock import clock
from .identity import Viewer
from .responses import problems_of_stream

VERSION = "/v1"  # prefix of the routes
_METHODS = ("GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH")
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Of one server, in a registry of its own.

    Args:
        store: whose queue is told.
    """

    def __init__(self, store: Store) -> None:
        self.registry = CollectorRegistry()
        self.seconds = Histogram(
            "bitfront_request_seconds",
            "Time until an answer begins.",
            ("method", "route", "status"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.streams = Gauge("bitfront_event_streams", "Event streams that are open.", registry=self.registry)
        self.lost_lines = Counter(
            "bitfront_audit_lines_lost",
            "Lines of the audit trail that the database did not take.",
            registry=self.registry,
        )
        self.registry.register(_FromStore(store))
        ProcessCollector(registry=self.registry)

    def text(self) -> bytes:
        """All of it in the exposition format."""
        return generate_latest(self.registry)


class Measured:
    """ASGI middleware: times each request until its answer begins.

    Args:
        app: what answers.
        metrics: where it is told.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer and time."""
        started = time.perf_counter()

        async def timed(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = _route(scope)
                method = scope["method"] if scope["method"] in _METHODS else "other"
                labels = (method, route, str(message["status"]))
                self.metrics.seconds.labels(*labels).observe(time.perf_counter() - started)
            await send(message)

        await self.app(scope, receive, timed if scope["type"] == "http" else send)


def _route(scope: Scope) -> str:
    """The template of the path, so that labels stay few."""
    template = str(getattr(scope.get("route"), "path", "none"))
    versioned = template != "none" and scope["path"].startswith(f"{VERSION}/") and not template.startswith(VERSION)
    return VERSION + template if versioned else template


class _FromStore(Collector):
    """Asks the database at each collection."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def describe(self) -> list[Metric]:
        """Nothing, so that registering asks no database."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Jobs by state, claims, events, the oldest waiting job, workers."""
        counts = Queue(self.store).counts()
        jobs = GaugeMetricFamily("bitfront_jobs", "Jobs by state.", labels=("state",))
        for state in JOB_STATES:
            jobs.add_metric((state,), counts.get(state, 0))
        yield jobs
        ready = (
            Job.state == "queued",
            ~Job.local,
            ~Job.waiting,
            or_(Job.not_before.is_(None), Job.not_before <= clock()),
        )
        with self.store.session() as session:
            claims = session.scalar(select(func.count()).where(Condition.reason == "Claimed")) or 0
            events = session.scalar(select(func.max(Event.id))) or 0
            age = session.scalar(select(clock() - func.min(Job.queued_at)).where(*ready))
        yield CounterMetricFamily("bitfront_claims", "Times that a worker took a job.", value=claims)
        yield CounterMetricFamily("bitfront_events", "Events that jobs wrote.", value=events)
        yield GaugeMetricFamily(
            "bitfront_queue_oldest_seconds", "Age of the oldest job that could run now.", value=max(0.0, age or 0.0)
        )
        workers = GaugeMetricFamily("bitfront_workers", "Workers seen in the last minute.", labels=("draining",))
        alive = Workers(self.store).alive()
        for draining in (False, True):
            workers.add_metric((str(draining).lower(),), sum(worker.draining is draining for worker in alive))
        yield workers


router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **problems_of_stream()},
)
def metrics(request: Request, who: Viewer) -> Response:
    """In its text format; needs a viewer's token like everything that tells of jobs."""
    found: Metrics = request.app.state.bitfront.metrics
    return Response(found.text(), media_type=CONTENT_TYPE_LATEST)
