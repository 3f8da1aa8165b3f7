"""The verb ``doctor``: whether this installation is sound."""

from __future__ import annotations

from ...errors import BitfrontError
from ..options import Json
from .printing import print_frame


def doctor_command(as_json: Json = False) -> None:
    """Check this installation: versions, optional packages, threads, the store."""
    import pandas as pd

    from ..doctor import examine
    from ..terminal import show

    rows = examine()
    print_frame(pd.DataFrame(rows), as_json, show)
    if any(row["state"] == "broken" for row in rows):
        raise BitfrontError("the installation is broken: see the lines above")
