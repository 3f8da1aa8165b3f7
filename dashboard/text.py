"""Text of users and models for Streamlit's Markdown: nothing in it is markup."""

from __future__ import annotations

import re

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~:$&^=@])")


def plain(text: str) -> str:
    """Text that Streamlit's Markdown shows as it is: every character with a meaning is escaped, lines are joined."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))
