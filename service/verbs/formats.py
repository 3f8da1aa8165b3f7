"""The verb ``formats``: which numeric formats there are."""

from __future__ import annotations

from typing import Annotated

import typer

from ..options import Json
from .printing import print_frame


def formats_command(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One format, such as w4g128ae4m3d.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also those that no library has a kernel for.")] = False,
    as_json: Json = False,
) -> None:
    """List the numeric formats that have kernels: what a weight costs in them, and where they run.

    The grammar has more than any list: any weight with any input, such as `w4g64a8d`.

        bitfront formats w4g128
    """
    import pandas as pd

    from ..format_table import format_rows
    from ..terminal import show

    print_frame(pd.DataFrame(format_rows(name, everything)), as_json, show)
