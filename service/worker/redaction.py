"""Keeping secrets out of what is stored and shown."""

from __future__ import annotations

import re

_IN_URL = re.compile(r"(://[^\s/:@]*):[^\s/@]+@")
_TOKEN = re.compile(r"\bbf_[\w-]{20,}|(?<=[Bb]earer )\S+")


def redacted(text: str) -> str:
    """The text without passwords in URLs and without bearer tokens.

    >>> redacted("postgresql://ann:secret@host/db refused bf_0123456789012345678901")
    'postgresql://ann:***@host/db refused ***'
    """
    return _TOKEN.sub("***", _IN_URL.sub(r"\1:***@", text))
