"""Token buckets: how often somebody may ask."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

_MOST_KEYS = 10_000


class Buckets:
    """A bucket for each key; it holds a minute's worth of requests and fills up steadily.

    The buckets live in this process's memory: several servers allow as many times more. Beyond 10,000 keys the one that
    asked longest ago is forgotten.

    Args:
        per_minute: requests.
        clock: seconds, for tests.
    """

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._rate, self._clock = max(per_minute, 1.0), per_minute / 60.0, clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, key: str, cost: float = 1.0) -> int:
        """Take from a bucket.

        Args:
            key: whose.
            cost: how much; 0 only looks whether the bucket is empty.

        Returns:
            0 if there was enough, else the whole seconds until there will be; then nothing is taken.
        """
        with self._lock:
            now = self._clock()
            level, at = self._levels.pop(key, (self._most, now))
            level = min(self._most, level + (now - at) * self._rate)
            needed = max(cost, 1.0)
            short = needed - level
            self._levels[key] = (level if short > 0 else level - cost, now)
            if len(self._levels) > _MOST_KEYS:
                self._levels.popitem(last=False)
        return math.ceil(short / self._rate) if short > 0 else 0
