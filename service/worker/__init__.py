"""Workers: processes that claim jobs from the queue and run each in a process of its own."""

from __future__ import annotations

from .worker import JobWorker

__all__ = ["JobWorker"]
