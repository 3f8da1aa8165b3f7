"""A server: the API in this process, workers and the dashboard in processes of their own, all ended together."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

import uvicorn

from ...errors import InvalidInput
from ...store import Access, Store
from ..api import create_app, ensure_admin
from ..settings import Settings, is_loopback
from ..settings_file import to_json
from ..token_file import stored_token, write_token
from .supervisor import Program, Supervisor
from .sweeper import Sweeper

_LAST_REQUESTS = 5  # seconds for what is being answered when the server is to end
_TO_SPARE = 20.0  # seconds for a worker beyond the grace that it gives its jobs


@dataclass(frozen=True)
class Started:
    """What is told when a server is ready.

    Attributes:
        url: where it answers.
        token: of a new administrator; ``None``: there are users already, or none are needed.
        token_file: where the token for this URL lies; ``None``: there is none for it.
        pids: of workers and dashboard.
    """

    url: str
    token: str | None
    token_file: str | None
    pids: list[int]


def serve(settings: Settings, workers: int, dashboard_port: int | None, ready: Callable[[Started], None]) -> None:
    """Serve until SIGINT or SIGTERM; then no new requests and no new jobs, and running jobs are given back.

    Args:
        settings: of the service.
        workers: processes that run jobs; 0: none, others run them.
        dashboard_port: on the loopback address; ``None``: no dashboard.
        ready: called once when requests are answered.

    Raises:
        InvalidInput: the port is taken, or the settings do not go together.
    """
    with _listening(settings.host, settings.port) as listener, contextlib.closing(Store(settings.store)) as store:
        port = listener.getsockname()[1]
        settings = replace(settings, port=port)
        app = create_app(settings, store)
        url = _url(settings.host, port)
        token, where = (None, None) if settings.insecure else _token(store, settings, url)
        supervisor = Supervisor(_programs(settings, workers, dashboard_port))
        config = uvicorn.Config(
            app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=_LAST_REQUESTS
        )
        server = _Server(config, lambda: ready(Started(url, token, where, supervisor.pids)))
        _on_signals(server, supervisor, app.state.bitfront.stopping)
        supervisor.start()
        try:
            with Sweeper(store, settings):
                server.run(sockets=[listener])
        finally:
            supervisor.stop()
            supervisor.join(settings.grace_seconds + _TO_SPARE)


class _Server(uvicorn.Server):
    """Leaves signals to us, and tells when it is ready."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()


def _on_signals(server: uvicorn.Server, supervisor: Supervisor, streams: threading.Event) -> None:
    """A signal drains, a second Ctrl-C ends this process at once; its workers then drain by themselves."""

    def stop() -> None:  # in a thread: the main one may hold the locks of what is set here
        streams.set()
        supervisor.stop()

    def handle(number: int, frame: FrameType | None) -> None:
        if server.should_exit and number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        server.should_exit = True
        threading.Thread(target=stop, name="stop", daemon=True).start()

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, handle)


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A bound socket, before anything else is started.

    Raises:
        InvalidInput: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(2048)
        except (OSError, OverflowError) as cause:
            reason = getattr(cause, "strerror", None) or cause
            raise InvalidInput(f"cannot listen on {host}:{port} ({reason}); give another --host or --port") from None
        yield listener


def _url(host: str, port: int) -> str:
    """Where clients on this machine reach the server."""
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"


def _token(store: Store, settings: Settings, url: str) -> tuple[str | None, str | None]:
    """A new administrator's token if there is no user yet, and the file with the token for this URL.

    Whoever may write the store is its administrator: where the store knows no token for this URL, one is made and only
    written to the file, never shown, if this is a server for this machine alone.
    """
    access = Access(store)
    first = ensure_admin(access)
    if first is not None:
        return first, str(write_token(url, first))
    known = stored_token(url)
    if known is not None and access.identify(known) is not None:
        return None, str(write_token(url, known))
    admin = next((each.name for each in access.users() if each.role == "admin"), None)
    if admin is None or not is_loopback(settings.host):
        return None, None
    return None, str(write_token(url, access.new_token(admin, f"of {url}")))


def _programs(settings: Settings, workers: int, dashboard_port: int | None) -> Sequence[Program]:
    given: dict[str, Any] = {"given": to_json(settings) + "\n"}
    arguments = ("-m", f"{__package__}.worker_process", "{parent}")
    found = [Program(f"worker {number + 1}", arguments, **given) for number in range(workers)]
    if dashboard_port is not None:
        options = ("dashboard", "--server", _url(settings.host, settings.port), "--port", str(dashboard_port))
        found.append(Program("the dashboard", ("-m", f"{__package__.rpartition('.')[0]}.cli", *options)))
    return found


def warn(settings: Settings) -> None:
    """Say on standard error what is open to others."""
    if is_loopback(settings.host):
        return
    what = "everybody who reaches it is an administrator" if settings.insecure else "tokens travel readable over HTTP"
    sys.stderr.write(
        f"bitfront serve: {settings.host} is reached from other machines: {what}; put TLS in front of it\n"
    )
