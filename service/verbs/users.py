"""The verbs ``users``: who may use a server, with which role; tokens.

On a server they need an administrator's token; on the store itself whoever may write it is the administrator.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from ...errors import InvalidInput
from ..options import Json, StoreUrl
from .printing import print_frame, print_json

if TYPE_CHECKING:
    from ...store import Store
    from ..client import Client

users_app = typer.Typer(
    help="Who may use a server: viewers read, submitters submit and control their own jobs, admins do everything."
)
Server = Annotated[
    str | None,
    typer.Option("--server", metavar="URL", help="Of the server.  [default: $BITFRONT_SERVER, else the store itself]"),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Of the user.")]


class _Users(Protocol):
    def add(self, name: str, role: str) -> None: ...
    def listed(self) -> list[tuple[str, str]]: ...
    def remove(self, name: str) -> None: ...
    def token(self, name: str, note: str, seconds: float | None) -> str: ...


@users_app.command("add")
def add_command(
    name: Name,
    role: Annotated[str, typer.Option(help="viewer, submitter or admin.")] = "submitter",
    server: Server = None,
    store: StoreUrl = None,
    as_json: Json = False,
) -> None:
    """Add a user, or give a known one another role.

    bitfront users add ann --role submitter
    """
    with _users(server, store) as users:
        users.add(name, role)
    _told({"name": name, "role": role}, f"{name} is a {role}; `bitfront users token {name}` makes a token", as_json)


@users_app.command("list")
def list_command(server: Server = None, store: StoreUrl = None, as_json: Json = False) -> None:
    """List the users and their roles.

    bitfront users list
    """
    import pandas as pd

    from ..terminal import show

    with _users(server, store) as users:
        rows = users.listed()
    print_frame(pd.DataFrame(rows, columns=["name", "role"]), as_json, show)


@users_app.command("remove")
def remove_command(name: Name, server: Server = None, store: StoreUrl = None, as_json: Json = False) -> None:
    """Remove a user; their tokens are void at once, their jobs stay.

    bitfront users remove ann
    """
    with _users(server, store) as users:
        users.remove(name)
    _told({"name": name, "removed": True}, f"{name} is removed, and all tokens with them", as_json)


@users_app.command("token")
def token_command(
    name: Name,
    note: Annotated[str, typer.Option(help="What it is for.")] = "",
    days: Annotated[float | None, typer.Option(help="Until it expires.  [default: it does not]")] = None,
    server: Server = None,
    store: StoreUrl = None,
    as_json: Json = False,
) -> None:
    """Make a token of a user and print it: this once, only its hash is kept.

    export BITFRONT_TOKEN=$(bitfront users token ann --days 30)
    """
    if days is not None and not days > 0:
        raise InvalidInput(f"--days {days:g}: give a time above 0")
    with _users(server, store) as users:
        token = users.token(name, note, None if days is None else days * 86_400.0)
    _told({"name": name, "token": token}, token, as_json)


def _told(content: dict[str, object], line: str, as_json: bool) -> None:
    if as_json:
        print_json(content)
    else:
        print(line)  # noqa: T201


@contextmanager
def _users(server: str | None, store: str | None) -> Iterator[_Users]:
    """The users of a server or of a store."""
    from ..client import SERVER_VARIABLE, Client

    if server is not None and store is not None:
        raise InvalidInput("give --server or --store, not both: a server has its own store")
    if server is not None or (store is None and os.environ.get(SERVER_VARIABLE)):
        with Client(server) as client:
            yield _OfServer(client)
        return
    from ...store import Store

    opened = Store(store)
    try:
        yield _OfStore(opened)
    finally:
        opened.close()


class _OfServer:
    def __init__(self, client: Client) -> None:
        self._client = client

    def add(self, name: str, role: str) -> None:
        self._client.add_user(name, role)

    def listed(self) -> list[tuple[str, str]]:
        return [(str(each["name"]), str(each["role"])) for each in self._client.users()]

    def remove(self, name: str) -> None:
        self._client.remove_user(name)

    def token(self, name: str, note: str, seconds: float | None) -> str:
        return self._client.new_token(name, note, seconds)


class _OfStore:
    def __init__(self, store: Store) -> None:
        from ...store import Access

        self._access = Access(store)

    def add(self, name: str, role: str) -> None:
        self._access.add_user(name, role)
        self._record("users add", f"{name} {role}")

    def listed(self) -> list[tuple[str, str]]:
        return [(each.name, each.role) for each in self._access.users()]

    def remove(self, name: str) -> None:
        self._access.remove_user(name)
        self._record("users remove", name)

    def token(self, name: str, note: str, seconds: float | None) -> str:
        made = self._access.new_token(name, note, seconds)
        self._record("users token", name)
        return made

    def _record(self, action: str, target: str) -> None:
        self._access.record("", action, target, "allowed", "on the store itself")
