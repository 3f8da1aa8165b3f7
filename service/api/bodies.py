"""Reading a request's body, no further than it may be long."""

from __future__ import annotations

from fastapi import Request
from starlette.exceptions import HTTPException


async def read_body(request: Request, most: int) -> str:
    """The body as text.

    Args:
        request: whose.
        most: bytes.

    Raises:
        HTTPException: 413: it is longer; 400: it is no UTF-8.
    """
    too_long = f"the body is longer than {most} bytes"
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > most:
        raise HTTPException(413, too_long)
    content = bytearray()
    async for piece in request.stream():  # chunked bodies declare no length
        content += piece
        if len(content) > most:
            raise HTTPException(413, too_long)
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise HTTPException(400, "the body is not UTF-8 text") from None
