"""Who asks: bearer tokens, roles, and whose job it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException

from ...errors import Refused
from ...store import Access, Identity, Job, Role
from .state import State, state_of

_BEARER = HTTPBearer(auto_error=False, description="a token from `bitfront users token NAME`")
ANONYMOUS = Identity("anonymous", "admin")  # where the server was started with --insecure
_ADMIN = "admin"


def identified(
    request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)] = None
) -> Identity:
    """The user whose token came along.

    Raises:
        HTTPException: 401: no token, or one that is unknown or expired.
    """
    state = state_of(request)
    if state.settings.insecure:
        return ANONYMOUS
    challenge = {"WWW-Authenticate": "Bearer"}
    if given is None:
        raise HTTPException(401, "no token: send `Authorization: Bearer TOKEN`", headers=challenge)
    found = state.access.identify(given.credentials)
    if found is None:
        state.access.record("", request.method, request.url.path, "refused", "unknown or expired token")
        raise HTTPException(401, "unknown or expired token: ask an administrator for a new one", headers=challenge)
    return found


def needing(role: Role) -> Callable[[Request, Identity], Identity]:
    """A dependency: the user, if they have this role.

    Raises:
        Refused: they have not.
    """

    def check(request: Request, who: Annotated[Identity, Depends(identified)]) -> Identity:
        if not who.may(role):
            reason = f"{who.name} is a {who.role}; this needs a {role}"
            state_of(request).access.record(who.name, request.method, request.url.path, "refused", reason)
            raise Refused(reason)
        return who

    return check


def own(state: State, who: Identity, job: Job, action: str) -> None:
    """Refuse to change a job of somebody else to all but administrators.

    Raises:
        Refused: it is somebody else's.
    """
    if job.owner != who.name and not who.may("admin"):
        reason = f"job {job.id} belongs to {job.owner or 'nobody'}; only they and administrators may {action} it"
        state.access.record(who.name, action, job.id, "refused", reason)
        raise Refused(reason)


def ensure_admin(access: Access) -> str | None:
    """A token of a new administrator if there is no user yet; ``None`` otherwise."""
    if access.users():
        return None
    access.add_user(_ADMIN, "admin")
    return access.new_token(_ADMIN, "made at the first start")


Viewer = Annotated[Identity, Depends(needing("viewer"))]
Submitter = Annotated[Identity, Depends(needing("submitter"))]
Admin = Annotated[Identity, Depends(needing("admin"))]
