"""Reading a request's body; the gate has bounded its length."""

from __future__ import annotations

from fastapi import Request
from starlette.exceptions import HTTPException


async def read_text(request: Request) -> str:
    """The body as text.

    Raises:
        HTTPException: 400: it is empty or no UTF-8; what the gate raises: it is too long or too slow.
    """
    content = await request.body()
    if not content.strip():
        raise HTTPException(400, "the body is empty")
    try:
        return content.decode()
    except UnicodeDecodeError as cause:
        raise HTTPException(400, f"the body is not UTF-8 text (byte {cause.start})") from None
