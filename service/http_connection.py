"""Requests to a server: tokens, retries, and the server's errors as the package's own."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from .. import errors
from ..errors import BitfrontError, Conflict, InvalidInput, NotFound, Refused
from .settings import is_loopback
from .token_file import known_token, server_of

_TRIES = 4
_FIRST_WAIT, _LONGEST_WAIT = 0.25, 10.0
_AGAIN = (429, 502, 503, 504)  # the server, or what stands before it, asks to come back
_KINDS: dict[int, type[BitfrontError]] = {
    400: InvalidInput,
    401: Refused,
    403: Refused,
    404: NotFound,
    409: Conflict,
    413: InvalidInput,
    415: InvalidInput,
    422: InvalidInput,
}


class Unreachable(BitfrontError):
    """No server answers at the address."""


class HttpConnection:
    """A server.

    Args:
        url: of the server.
        token: bearer token; ``None``: ``$BITFRONT_TOKEN``, or the one that `bitfront serve` wrote for this URL.
        timeout: seconds to wait for an answer.
        transport: of httpx, instead of the network.

    Raises:
        InvalidInput: the URL is none, or the token cannot be one.
        Refused: the token file can be read by others.
    """

    def __init__(
        self, url: str, token: str | None, timeout: float = 60.0, transport: httpx.BaseTransport | None = None
    ) -> None:
        _, host, _ = server_of(url)
        self.url = url.rstrip("/")
        self._token = token if token is not None else known_token(url)
        if self._token and not (self._token.isascii() and self._token.isprintable()):
            raise InvalidInput("the token has characters that no token has; is it complete, and one line?")
        self._http = httpx.Client(
            base_url=self.url,
            timeout=httpx.Timeout(timeout, connect=min(timeout, 10.0)),
            headers={"Authorization": f"Bearer {self._token}"} if self._token else {},
            follow_redirects=False,  # the token goes nowhere else
            trust_env=not is_loopback(host),  # a proxy cannot reach this machine's own address
            transport=transport,
        )

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def ask(self, method: str, path: str, *, again: bool | None = None, **options: Any) -> httpx.Response:
        """One request, tried again where that can do no harm.

        Args:
            method: of HTTP.
            path: below the server's URL.
            again: whether it may be sent twice; by default if it changes nothing.
            options: of ``httpx.Client.request``.

        Raises:
            BitfrontError: what the server says; ``Unreachable`` where there is none.
        """
        repeatable = method == "GET" if again is None else again
        content = options.pop("content", None)
        for number in range(_TRIES):
            last = number == _TRIES - 1
            wait = min(_FIRST_WAIT * 2.0**number, _LONGEST_WAIT)
            if isinstance(content, io.IOBase):
                content.seek(0)
            try:
                response = self._http.request(method, path, content=content, **options)
            except httpx.ConnectError as cause:  # nothing was sent
                if last:
                    raise self._unreachable(cause) from None
            except httpx.TransportError as cause:
                if last or not repeatable:
                    raise self._unreachable(cause) from None
            else:
                # 429 was refused before anything was done
                if last or response.status_code not in _AGAIN or not (repeatable or response.status_code == 429):
                    return checked(response)
                wait = _asked_wait(response, wait)
            time.sleep(wait)
        raise AssertionError("the last try returns or raises")

    @contextmanager
    def stream(self, path: str, headers: Mapping[str, str] | None = None) -> Iterator[httpx.Response]:
        """An answer that is read piece by piece.

        Raises:
            Unreachable: there is no server, it asks to come back, or the connection is lost inside the block.
            BitfrontError: what the server says.
        """
        try:
            with self._http.stream("GET", path, headers=dict(headers or {})) as response:
                if response.status_code in _AGAIN:
                    raise Unreachable(f"the server at {self.url} answers {response.status_code}: try again")
                if response.status_code != 200:
                    response.read()
                    checked(response)
                yield response
        except httpx.TransportError as cause:
            raise self._unreachable(cause) from None

    def _unreachable(self, cause: Exception) -> Unreachable:
        return Unreachable(
            f"no server answers at {self.url} ({' '.join(str(cause).split()) or type(cause).__name__}); start one with "
            "`bitfront serve`, or name another with --server or $BITFRONT_SERVER"
        )


def checked(response: httpx.Response) -> httpx.Response:
    """The answer, if it is a success.

    Raises:
        BitfrontError: it is not; of the kind and with the line that the server tells.
    """
    status = response.status_code
    if 200 <= status < 300:
        return response
    try:
        told = response.json()["error"]
        name, message = str(told["type"]), str(told["message"])
    except (ValueError, KeyError, TypeError):
        where = f"{response.request.url} answers {status} {response.reason_phrase}"
        name, message = "", f"{where}; is it a bitfront server?"
    if status == 401:
        message += "; the client takes it from $BITFRONT_TOKEN or the file that `bitfront serve` wrote"
    exact = getattr(errors, name, None)
    if status < 500 and isinstance(exact, type) and issubclass(exact, BitfrontError):
        raise exact(message)
    raise _KINDS.get(status, BitfrontError)(message)


def _asked_wait(response: httpx.Response, otherwise: float) -> float:
    """Seconds that the server asks to wait."""
    asked = response.headers.get("Retry-After", "")
    return min(float(asked), _LONGEST_WAIT) if asked.isdigit() else otherwise
