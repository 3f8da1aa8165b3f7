"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output instead of tables.")]
StoreUrl = Annotated[
    str | None,
    typer.Option("--store", help="SQLAlchemy URL of the store.  [default: $BITFRONT_STORE or .bitfront/store.db]"),
]
