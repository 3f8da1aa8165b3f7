"""Plain data as JSON has it: numbers that are not finite become null."""

from __future__ import annotations

import math
from typing import Any


def plain(content: Any) -> Any:
    """The same data without NaN and infinities, tuples as lists."""
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, dict):
        return {str(key): plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [plain(value) for value in content]
    return content
