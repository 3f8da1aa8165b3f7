"""Users, their tokens, and the audit trail.

A token is 32 random bytes, so its SHA-256 cannot be guessed back and needs no salt; only the hash is kept.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import Literal, cast

from sqlalchemy import delete, or_, select

from ..errors import InvalidInput, NotFound
from .clock import clock, now
from .queue_models import Audit, Token, User
from .store import Store

Role = Literal["viewer", "submitter", "admin"]
#: What a role may do includes what the ones before it may.
ROLES: tuple[Role, ...] = ("viewer", "submitter", "admin")
_PREFIX = "bf_"


@dataclass(frozen=True)
class Identity:
    """Who asks.

    Attributes:
        name: of the user.
        role: what they may do.
    """

    name: str
    role: Role

    def may(self, role: Role) -> bool:
        """Whether this role includes another."""
        return ROLES.index(self.role) >= ROLES.index(role)


class Access:
    """Users and tokens of a store.

    Args:
        store: where.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def add_user(self, name: str, role: str) -> Identity:
        """Add a user, or give a known one another role.

        Raises:
            InvalidInput: no such role, or no name.
        """
        if role not in ROLES:
            raise InvalidInput(f"unknown role {role!r}; choose {', '.join(ROLES)}")
        if not name or len(name) > 80 or not name.isprintable():
            raise InvalidInput(f"user name {name!r}: give 1 to 80 printable characters")
        with self.store.writing() as session:
            known = session.get(User, name)
            if known is None:
                session.add(User(name=name, role=role))
            else:
                known.role = role
        return Identity(name, role)

    def users(self) -> list[Identity]:
        """All users by name."""
        with self.store.session() as session:
            return [
                Identity(user.name, cast(Role, user.role)) for user in session.scalars(select(User).order_by(User.name))
            ]

    def remove_user(self, name: str) -> None:
        """Remove a user with all tokens.

        Raises:
            NotFound: there is none.
        """
        with self.store.writing() as session:
            known = session.get(User, name)
            if known is None:
                raise NotFound(f"no user {name!r}")
            session.delete(known)

    def new_token(self, name: str, note: str = "", seconds: float | None = None) -> str:
        """A new bearer token of a user; it is shown this once and never again.

        Args:
            name: of the user.
            note: what it is for.
            seconds: until it expires; ``None``: it does not.

        Raises:
            NotFound: no such user.
        """
        token = _PREFIX + secrets.token_urlsafe(32)
        with self.store.writing() as session:
            if session.get(User, name) is None:
                raise NotFound(f"no user {name!r}; add them first")
            until = None if seconds is None else now(session) + seconds
            session.add(Token(hash=_hash(token), user=name, note=note, expires_at=until))
        return token

    def revoke_tokens(self, name: str) -> int:
        """Make all tokens of a user void; how many they were."""
        with self.store.writing() as session:
            done = session.execute(delete(Token).where(Token.user == name))
            return int(done.rowcount)  # type: ignore[attr-defined]

    def identify(self, token: str) -> Identity | None:
        """Whose token this is; ``None`` for one that is unknown or expired."""
        query = (
            select(User.name, User.role)
            .join(Token, Token.user == User.name)
            .where(Token.hash == _hash(token), or_(Token.expires_at.is_(None), Token.expires_at > clock()))
        )
        with self.store.session() as session:
            row = session.execute(query).first()
        return None if row is None else Identity(row[0], cast(Role, row[1]))

    def record(self, user: str, action: str, target: str, outcome: str, detail: str = "") -> None:
        """Write a line of the audit trail.

        Args:
            user: who, "" where nobody was identified.
            action: such as ``"submit"``.
            target: what it was about.
            outcome: ``"allowed"`` or ``"refused"``.
            detail: why; never a secret.
        """
        with self.store.writing() as session:
            at = now(session)
            session.add(Audit(at=at, user=user, action=action, target=target, outcome=outcome, detail=detail))

    def trail(self, count: int = 100, before: int | None = None) -> list[Audit]:
        """The newest lines of the audit trail, newest first."""
        query = select(Audit).order_by(Audit.id.desc()).limit(count)
        if before is not None:
            query = query.where(Audit.id < before)
        with self.store.session() as session:
            return list(session.scalars(query))


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
