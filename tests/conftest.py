"""Shared by all tests: one torch thread a process (small networks; see CONTRIBUTING)."""

import logging
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

POSTGRES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)

# CI runs the same examples every time; at a desk each run tries new ones
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


@pytest.fixture(autouse=True, scope="session")
def _one_torch_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _logging_as_it_was():
    """The entry points of processes turn logging down; a test that calls one does not do so for the next."""
    before = logging.root.manager.disable
    yield
    logging.disable(before)


@pytest.fixture(scope="session")
def reference_data() -> Path:
    """The folder of published reference data, or a skip that says where it was looked for."""
    folder = Path(os.environ.get("BITFRONT_REFERENCE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"reference data not found in {folder}; set BITFRONT_REFERENCE_DATA")
    return folder


@pytest.fixture(scope="session")
def postgres_url():
    """A PostgreSQL of its own on a free port, run by the unprivileged user postgres."""
    if POSTGRES is None:
        pytest.skip("no PostgreSQL server programs under /usr/lib/postgresql")
    # not below pytest's folder, which every pytest that starts closes to other users again
    folder = Path(tempfile.mkdtemp(prefix="bitfront-postgres-"))
    shutil.chown(folder, "postgres", "postgres")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def as_postgres(*command):
        done = subprocess.run(["runuser", "-u", "postgres", "--", *command], capture_output=True, text=True, cwd=folder)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"

    data = folder / "data"
    as_postgres(POSTGRES / "initdb", "-D", data, "--auth=trust", "--no-sync")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
    as_postgres(POSTGRES / "pg_ctl", "-D", data, "-o", options, "-w", "-l", folder / "log", "start")
    yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
    as_postgres(POSTGRES / "pg_ctl", "-D", data, "-m", "immediate", "stop")
    shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request, tmp_path):
    """An empty store: a SQLite file, then a PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/deep/er/store.db"
    from bitfront.store.base import Base
    from bitfront.store.database import open_engine

    url = request.getfixturevalue("postgres_url")
    engine = open_engine(url)
    with engine.begin() as connection:
        for table in reversed(Base.metadata.sorted_tables):
            connection.execute(table.delete())
    engine.dispose()
    return url
