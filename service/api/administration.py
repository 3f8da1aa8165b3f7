"""Routes of administrators: users and their tokens, the audit trail; and the workers, which all may see."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from ...errors import Conflict, NotFound
from ...store import Access, Role
from .identity import Admin, Viewer
from .notes import notes_of
from .parameters import MOST_ID, UserName
from .plain import plain
from .responses import ALWAYS, problems
from .state import state_of

router = APIRouter(responses=ALWAYS)


class UserView(BaseModel):
    """A user."""

    name: str = Field(examples=["ann"])
    role: Role


class NewUser(BaseModel):
    """A user to add, or one whose role is to change."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=80, pattern=r"^[\w.@-]+$", examples=["ann"])
    role: Role


class NewToken(BaseModel):
    """What a token is for."""

    model_config = ConfigDict(extra="forbid")

    note: str = Field("", max_length=200, pattern=r"^[^\x00-\x1f]*$", examples=["laptop"])
    seconds: float | None = Field(None, gt=0, le=1e9, description="until it expires; null: it does not")


class TokenView(BaseModel):
    """A token, shown this once."""

    user: str
    token: str = Field(examples=["bf_…"])


class Revoked(BaseModel):
    """How many tokens became void."""

    tokens: int


class AuditView(BaseModel):
    """A line of the audit trail."""

    id: int
    at: float = Field(description="seconds since 1970, by the database's clock")
    user: str = Field(description="empty where nobody was identified")
    action: str = Field(examples=["cancel"])
    target: str = Field(examples=["3f2a9c51d0e7"])
    outcome: str = Field(description="allowed, refused, or failed", examples=["allowed"])
    detail: str


class WorkerView(BaseModel):
    """A process that runs jobs."""

    id: str
    capabilities: dict[str, Any] = Field(examples=[{"gpus": 1, "cpus": 16}])
    draining: bool = Field(description="whether it takes no new jobs")
    seconds: float = Field(description="since its last sign of life")


@router.get("/users", summary="List users", tags=["users"])
def users(request: Request, who: Admin) -> list[UserView]:
    """By name."""
    return [UserView(name=each.name, role=each.role) for each in state_of(request).access.users()]


@router.post(
    "/users", status_code=201, summary="Add a user, or change a role", tags=["users"], responses=problems(400, 409)
)
def add_user(request: Request, who: Admin, body: NewUser) -> UserView:
    """A new user has no token yet: POST /users/{name}/tokens makes one."""
    access = state_of(request).access
    notes = notes_of(request)
    notes.target, notes.detail = body.name, body.role
    if body.role != "admin":
        _keep_an_admin(access, body.name)
    made = access.add_user(body.name, body.role)
    return UserView(name=made.name, role=made.role)


@router.delete("/users/{name}", summary="Remove a user with all tokens", tags=["users"], responses=problems(404, 409))
def remove_user(request: Request, who: Admin, name: UserName) -> UserView:
    """The user's jobs stay."""
    access = state_of(request).access
    notes_of(request).target = name
    found = [each for each in access.users() if each.name == name]
    if not found:
        raise NotFound(f"no user {name!r}")
    _keep_an_admin(access, name)
    access.remove_user(name)
    return UserView(name=name, role=found[0].role)


@router.post(
    "/users/{name}/tokens", status_code=201, summary="A new token", tags=["users"], responses=problems(400, 404)
)
def new_token(request: Request, who: Admin, name: UserName, body: NewToken | None = None) -> TokenView:
    """Only its hash is kept: this answer is the one chance to read it."""
    asked = body or NewToken(note="", seconds=None)
    notes_of(request).target, notes_of(request).detail = name, asked.note
    return TokenView(user=name, token=state_of(request).access.new_token(name, asked.note, asked.seconds))


@router.delete(
    "/users/{name}/tokens", summary="Make all tokens of a user void", tags=["users"], responses=problems(404)
)
def revoke_tokens(request: Request, who: Admin, name: UserName) -> Revoked:
    """From the next request on."""
    access = state_of(request).access
    notes_of(request).target = name
    if all(each.name != name for each in access.users()):
        raise NotFound(f"no user {name!r}")
    return Revoked(tokens=access.revoke_tokens(name))


@router.get("/audit", summary="The audit trail, newest first", tags=["users"])
def audit(
    request: Request,
    who: Admin,
    before: Annotated[int | None, Query(ge=0, le=MOST_ID, description="id of the last line of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[AuditView]:
    """Every request that changed something, and every one that was refused."""
    names = ("id", "at", "user", "action", "target", "outcome", "detail")
    lines = state_of(request).access.trail(limit, before)
    return [AuditView.model_validate({name: getattr(line, name) for name in names}) for line in lines]


@router.get("/workers", summary="The workers that were seen in the last minute", tags=["workers"])
def workers(request: Request, who: Viewer) -> list[WorkerView]:
    """By id."""
    return [
        WorkerView(id=each.id, capabilities=plain(each.capabilities), draining=each.draining, seconds=each.seconds)
        for each in state_of(request).workers.alive()
    ]


def _keep_an_admin(access: Access, name: str) -> None:
    """Refuse to take the last administrator away.

    Raises:
        Conflict: it is the last one.
    """
    if [each.name for each in access.users() if each.role == "admin"] == [name]:
        raise Conflict(f"{name} is the last administrator; make another one first")
