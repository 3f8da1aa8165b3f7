"""A real server on a free port, in this process, for tests of the client and of the command line."""

import contextlib
import dataclasses
import socket
import threading
import time

import pytest
import uvicorn
from bitfront.service.api import create_app
from bitfront.service.settings import Settings
from bitfront.store import Access, Store
from fastapi.testclient import TestClient


@pytest.fixture
def store(tmp_path):
    """An empty SQLite store."""
    store = Store(f"sqlite:///{tmp_path}/store.db")
    yield store
    store.close()


@dataclasses.dataclass
class Live:
    """A server and what lies behind it."""

    url: str
    store: Store
    settings: Settings
    tokens: dict[str, str]


@contextlib.contextmanager
def running(app):
    """The app on a free port of this machine; its port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(100)
        config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=2)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)  # polls; what is asserted does not depend on it
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            app.state.bitfront.stopping.set()
            thread.join()


@pytest.fixture
def live(tmp_path, monkeypatch):
    """A server with an administrator ada, a submitter sam and a viewer vic."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("BITFRONT_TOKEN", "BITFRONT_SERVER", "BITFRONT_CONFIG", "BITFRONT_STORE"):
        monkeypatch.delenv(name, raising=False)
    settings = Settings(
        store=f"sqlite:///{tmp_path}/live.db", outputs=str(tmp_path / "jobs"), uploads=str(tmp_path / "uploads")
    )
    store = Store(settings.store)
    access = Access(store)
    for name, role in (("ada", "admin"), ("sam", "submitter"), ("vic", "viewer")):
        access.add_user(name, role)
    tokens = {each.name: access.new_token(each.name) for each in access.users()}
    with running(create_app(settings, store)) as port:
        yield Live(f"http://127.0.0.1:{port}", store, settings, tokens)
    store.close()


@pytest.fixture
def server(tmp_path):
    """A service over HTTP, and its settings."""
    settings = Settings(
        store=f"sqlite:///{tmp_path}/store.db",
        outputs=str(tmp_path / "jobs"),
        uploads=str(tmp_path / "uploads"),
        executor="local",
    )
    store = Store(settings.store)
    access = Access(store)
    access.add_user("sam", "submitter")
    headers = {"Authorization": f"Bearer {access.new_token('sam')}"}
    yield TestClient(create_app(settings, store), base_url="http://127.0.0.1:8765", headers=headers), settings
    store.close()
