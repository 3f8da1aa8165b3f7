"""Sweeps the files of jobs that ended long ago, every hour while a server runs."""

from __future__ import annotations

import sys
import threading

from sqlalchemy.exc import SQLAlchemyError

from ...errors import BitfrontError
from ...store import Store
from ..errors_of_database import told
from ..retention import sweep
from ..settings import Settings

_EVERY = 3600.0  # seconds


class Sweeper:
    """A thread that sweeps; use it as a context manager. Several servers may sweep one store.

    Args:
        store: of the service.
        settings: how long files are kept; without it nothing is done.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store, self._settings = store, settings
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def __enter__(self) -> Sweeper:
        if self._settings.keep_days is not None:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                found = sweep(self._store, self._settings)
            except SQLAlchemyError as cause:
                sys.stderr.write(f"bitfront serve: files were not swept: {told(cause)}; again in an hour\n")
            except (BitfrontError, OSError) as cause:
                sys.stderr.write(f"bitfront serve: files were not swept: {cause}; again in an hour\n")
            else:
                for job_id, reason in found.left.items():
                    sys.stderr.write(f"bitfront serve: files of job {job_id} stay: {reason}\n")
            self._stop.wait(_EVERY)
