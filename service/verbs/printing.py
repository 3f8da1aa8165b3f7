"""Tables for people, records for programs."""

from __future__ import annotations

import json
from typing import Any


def print_frame(frame: Any, as_json: bool, show: Any) -> None:
    """A data frame as a table, or as JSON records; empty cells for what is missing.

    Args:
        frame: of pandas.
        as_json: whether to print one JSON document.
        show: prints a table.
    """
    from rich.markup import escape
    from rich.table import Table

    if as_json:
        print(frame.to_json(orient="records"))  # noqa: T201
        return
    table = Table(*[str(column) for column in frame.columns])
    for row in frame.itertuples(index=False):
        table.add_row(*["" if value is None or value != value else escape(str(value)) for value in row])
    show(table)


def print_json(content: Any) -> None:
    """One JSON document, on its way at once."""
    print(json.dumps(content, allow_nan=False), flush=True)  # noqa: T201
