"""English text that CPython itself carries: the language reference in `pydoc_data.topics`, split by topic.

Several topics repeat paragraphs of others ("compound" holds "while", "for", "try" …), so topics are first joined into
groups that share no paragraph; a group belongs to one split as a whole. The text differs between versions of Python,
therefore everything that is trained on it keeps its digest (`digest`) in the recipe.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache

SHARES: dict[str, float] = {"train": 0.64, "calibration": 0.12, "validation": 0.12, "holdout": 0.12}
"""Split -> share of the characters that it should hold."""

LICENCE = "text PSF-2.0 (CPython)"
SOURCE = "the language reference in CPython's pydoc_data.topics"

_TYPOGRAPHIC = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "..."})
_REPEATED = 60  # characters from which an equal paragraph is taken for the same text


@cache
def splits() -> dict[str, tuple[str, ...]]:
    """The names of the topics of each split.

    Groups are dealt out largest first, each to the split that is furthest below its share.

    Returns:
        Split -> sorted topic names; every topic occurs once.
    """
    texts = _texts()
    groups = sorted(_groups(texts), key=lambda group: (-sum(len(texts[name]) for name in group), group))
    found: dict[str, list[str]] = {split: [] for split in SHARES}
    filled = dict.fromkeys(SHARES, 0)
    for group in groups:
        split = min(SHARES, key=lambda name: filled[name] / SHARES[name])
        found[split] += group
        filled[split] += sum(len(texts[name]) for name in group)
    return {split: tuple(sorted(members)) for split, members in found.items()}


def text(split: str) -> str:
    """All text of a split, ASCII only, topics in alphabetical order, each paragraph once.

    Args:
        split: A key of `SHARES`.

    Returns:
        Paragraphs separated by an empty line.
    """
    seen: dict[str, None] = {}
    for name in splits()[split]:
        seen.update(dict.fromkeys(_texts()[name].split("\n\n")))
    return "\n\n".join(seen)


def sentences(split: str) -> list[str]:
    """The English sentences of a split: 6 to 40 words, beginning with a capital, ending with a full stop.

    Args:
        split: A key of `SHARES`.

    Returns:
        Each sentence once, in the order of the text.
    """
    found: dict[str, None] = {}
    for paragraph in text(split).split("\n\n"):
        for sentence in re.split(r"(?<=[.])\s+(?=[A-Z])", " ".join(paragraph.split())):
            words = sentence.split()
            plain = sum(word.strip(",.;:()").isalpha() for word in words)
            if 6 <= len(words) <= 40 and re.match(r"[A-Z].*\.$", sentence) and plain >= 0.8 * len(words):
                found[sentence] = None
    return list(found)


@cache
def digest() -> str:
    """SHA-256 of the text of all splits."""
    return hashlib.sha256("\0".join(text(split) for split in SHARES).encode()).hexdigest()


@cache
def _texts() -> dict[str, str]:
    """Topic -> ASCII text."""
    from pydoc_data.topics import topics

    return {
        name: body.translate(_TYPOGRAPHIC).encode("ascii", "replace").decode() for name, body in sorted(topics.items())
    }


def _groups(texts: dict[str, str]) -> list[list[str]]:
    """Topics joined (transitively) where they share a long paragraph."""
    owner: dict[str, str] = {}
    group = {name: [name] for name in texts}
    for name, body in texts.items():
        for paragraph in body.split("\n\n"):
            key = " ".join(paragraph.split())
            if len(key) < _REPEATED:
                continue
            other = group[owner.setdefault(key, name)]
            if other is not group[name]:
                other += group[name]
                for member in group[name]:
                    group[member] = other
    return [sorted(members) for members in {id(members): members for members in group.values()}.values()]
