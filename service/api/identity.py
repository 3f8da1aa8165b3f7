"""Who asks: roles, and whose job it is. The gate has looked at the token by then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException

from ...errors import Refused
from ...store import Access, Identity, Job, Role
from .notes import notes_of

# for the OpenAPI document: the gate has done the work
_BEARER = HTTPBearer(auto_error=False, description="a token from `bitfront users token NAME`")
_ADMIN = "admin"


def identified(
    request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)] = None
) -> Identity:
    """The user whose token came along.

    Raises:
        HTTPException: 401: the gate let nobody in.
    """
    who = notes_of(request).who
    if who is None:
        raise HTTPException(
            401,
            "no token: send one in the header `Authorization`, after the word Bearer",
            {"WWW-Authenticate": "Bearer"},
        )
    return who


def needing(role: Role) -> Callable[[Identity], Identity]:
    """A dependency: the user, if they have this role."""

    def check(who: Annotated[Identity, Depends(identified)]) -> Identity:
        if not who.may(role):
            raise Refused(f"{who.name} is a {who.role}; this needs a {role}")
        return who

    return check


def own(who: Identity, job: Job, action: str) -> None:
    """Refuse to change a job of somebody else to all but administrators.

    Raises:
        Refused: it is somebody else's.
    """
    if job.owner != who.name and not who.may("admin"):
        owner = job.owner or "nobody"
        raise Refused(f"job {job.id} belongs to {owner}; only they and administrators may {action} it")


def ensure_admin(access: Access) -> str | None:
    """A token of a new administrator if there is no user yet; ``None`` otherwise."""
    if access.users():
        return None
    access.add_user(_ADMIN, "admin")
    return access.new_token(_ADMIN, "made at the first start")


Viewer = Annotated[Identity, Depends(needing("viewer"))]
Submitter = Annotated[Identity, Depends(needing("submitter"))]
Admin = Annotated[Identity, Depends(needing("admin"))]
