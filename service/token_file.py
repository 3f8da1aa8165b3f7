"""Where `bitfront serve` keeps the token of a server, and where clients on the same account find it.

One file a server, readable by its owner only: ``bitfront/tokens/HOST_PORT`` in ``$XDG_CONFIG_HOME`` or ``~/.config``.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import InvalidInput, Refused
from ..files import replacing

TOKEN_VARIABLE = "BITFRONT_TOKEN"
_PORTS = {"http": 80, "https": 443}


def server_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a server's URL.

    Raises:
        InvalidInput: it is none.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as cause:
        raise InvalidInput(f"server {url!r}: {cause}; write http://HOST:PORT") from None
    if parts.scheme not in _PORTS or not parts.hostname:
        raise InvalidInput(f"server {url!r} is no URL of a server; write http://HOST:PORT")
    return parts.scheme, parts.hostname, port or _PORTS[parts.scheme]


def token_file(url: str) -> Path:
    """The file for the token of a server."""
    _, host, port = server_of(url)
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "bitfront" / "tokens" / f"{host.replace(':', '.')}_{port}"


def write_token(url: str, token: str) -> Path:
    """Keep the token of a server, for its owner's eyes only from the first byte on."""
    path = token_file(url)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with replacing(path) as side:
        descriptor = os.open(side, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(token + "\n")
    return path


def known_token(url: str) -> str | None:
    """The token for a server: ``$BITFRONT_TOKEN``, else that of its file; ``None``: there is none.

    Raises:
        Refused: others may read the file.
    """
    given = os.environ.get(TOKEN_VARIABLE)
    return given.strip() if given else stored_token(url)


def stored_token(url: str) -> str | None:
    """The token in the file of a server; ``None``: there is none.

    Raises:
        Refused: others may read the file.
    """
    path = token_file(url)
    try:
        mode = path.stat().st_mode
        content = path.read_text()
    except FileNotFoundError:
        return None
    if mode & 0o077:
        raise Refused(f"the token file {path} can be read by others; `chmod 600 {path}`, and let the token be replaced")
    return content.strip() or None
