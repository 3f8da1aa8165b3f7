"""How a job is stopped: SIGINT, which waits for what is being measured; a second one does not wait."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class StopSignal:
    """Turns SIGINT into ``KeyboardInterrupt``, at once or at the next point where nothing measured would be lost."""

    def __init__(self) -> None:
        self._waits = False
        self._asked = False

    def install(self) -> None:
        """Handle the signals of this process from now on; only in its main thread."""
        signal.signal(signal.SIGINT, self._handle)

    @contextmanager
    def after_what_is_in_hand(self) -> Iterator[None]:
        """Inside the block a first signal waits for ``here``, or for the end of the block.

        Raises:
            KeyboardInterrupt: it came inside the block.
        """
        self._waits = True
        try:
            yield
        finally:
            self._waits = False
        self.here()

    def here(self) -> None:
        """A point where the job may stop.

        Raises:
            KeyboardInterrupt: it was asked to.
        """
        if self._asked:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: Any) -> None:
        if self._waits and not self._asked:
            self._asked = True
        else:
            raise KeyboardInterrupt
