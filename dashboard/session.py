"""Who looks: the client of the server, with the token of the person in front of this browser.

The dashboard decides nothing about rights: every request carries the person's own token, and the server checks it. A
token lies in the memory of one session and nowhere else.
"""

from __future__ import annotations

import os
from typing import NoReturn

import streamlit as st

from ..errors import BitfrontError, Refused
from ..service.client import Client
from ..service.http_connection import Unreachable
from ..service.token_file import token_file
from . import SERVER_VARIABLE
from .page_end import end_page
from .text import plain

_CLIENT, _NAME, _ASKED = "bitfront_client", "bitfront_user", "bitfront_needs_token"
_VOID = "bitfront_token_is_void"
_DAY = 8 * 3600.0  # seconds that a token made for a person of the OpenID provider is good for


def server() -> str | None:
    """URL of the server whose jobs are shown, or ``None``: only run folders are."""
    return os.environ.get(SERVER_VARIABLE) or None


def ask_in() -> None:
    """Before a page shows anything: where a server is connected, the login."""
    if server() is not None:
        require_client()


def require_client() -> Client:
    """The person's client; without one the page shows the login and ends here."""
    url = server()
    if url is None:
        st.info("No server is connected. Start one with `bitfront serve`, or `bitfront dashboard --server URL`.")
        end_page()
    known = st.session_state.get(_CLIENT)
    if isinstance(known, Client):
        return known
    try:
        opened = None if st.session_state.get(_ASKED) else _opened(url, "")
        st.session_state[_ASKED] = opened is None
        opened = opened or _by_identity(url)
    except Unreachable as cause:
        st.error(plain(f"{cause}"))
        if st.button("Try again", key="reconnect"):
            st.rerun()
        end_page()
    if opened is None:
        _login(url)
        end_page()
    st.session_state[_CLIENT] = opened
    return opened


def trouble(cause: BitfrontError) -> NoReturn:
    """The server did not answer what a page asked: say it and end the page; a token that is void leads to the login."""
    client = st.session_state.get(_CLIENT)
    if isinstance(cause, Refused) and isinstance(client, Client) and not _still_good(client):
        sign_out()
        st.session_state[_VOID] = True
        st.rerun()
    st.error(plain(str(cause)))
    if st.button("Try again", key="again"):
        st.rerun()
    end_page()


def _still_good(client: Client) -> bool:
    """Whether the server knows the token."""
    try:
        next(client.jobs(), None)
    except Refused:
        return False
    except BitfrontError:
        return True
    return True


def account() -> None:
    """Who is signed in, and the way out; for the sidebar."""
    if isinstance(st.session_state.get(_CLIENT), Client) and st.session_state.get(_NAME) is not None:
        name = st.session_state[_NAME]
        st.caption(plain(f"signed in as {name} at" if name else "signed in at"))
        st.code(server(), language=None)
        if st.button("Sign out", key="sign_out"):
            sign_out()
            st.rerun()


def sign_out() -> None:
    """Forget the token and everything that was read with it."""
    known = st.session_state.get(_CLIENT)
    if isinstance(known, Client):
        known.close()
    oidc = _oidc()
    st.session_state.clear()
    if oidc and st.user.is_logged_in:
        st.logout()


def _opened(url: str, token: str) -> Client | None:
    """A client that the server lets in, or ``None``."""
    client = Client(url, token)
    try:
        next(client.jobs(), None)
    except Refused:
        client.close()
        return None
    except BitfrontError:
        client.close()
        raise
    return client


def _login(url: str) -> None:
    st.title("Sign in")
    if st.session_state.get(_VOID):
        st.warning("The token of this session has expired or was revoked. Sign in again.")
    if _oidc():
        if st.user.is_logged_in:
            st.error(plain(f"{st.user.email} is not a user of this server; ask an administrator to add the name"))
        st.button("Sign in with your organisation", on_click=st.login, type="primary", key="oidc")
        st.divider()
    with st.form("login", border=True):
        token = st.text_input("Token", type="password", autocomplete="off", key="token_field")
        st.caption(
            plain(f"Of {url}. Whoever started the server finds one in {token_file(url)}; for others: ")
            + "`bitfront users token NAME`."
        )
        sent = st.form_submit_button("Sign in", type="primary")
    if not sent:
        return
    try:
        client = _opened(url, token.strip()) if token.strip() else None
    except BitfrontError as cause:
        st.error(plain(str(cause)))
        return
    if client is None:
        st.error("The server does not accept this token. Is it complete, and of this server?")
        return
    st.session_state[_CLIENT], st.session_state[_NAME] = client, ""
    for key in ("token_field", _VOID):
        st.session_state.pop(key, None)
    st.rerun()


def _oidc() -> bool:
    """Whether Streamlit's secrets name an OpenID Connect provider."""
    from streamlit.errors import StreamlitSecretNotFoundError

    try:
        return "auth" in st.secrets
    except StreamlitSecretNotFoundError:
        return False


def _by_identity(url: str) -> Client | None:
    """A client for a person whom the OpenID provider vouches for.

    The dashboard's own administrator token (``BITFRONT_TOKEN``) makes a token for the user of that e-mail address, good
    for a working day; a person who is no user of the server is not let in.
    """
    if not _oidc() or not st.user.is_logged_in or not st.user.get("email_verified", False):
        return None
    name = str(st.user.email)
    with Client(url) as administrator:
        if all(user["name"] != name for user in administrator.users()):
            return None
        token = administrator.new_token(name, "dashboard", _DAY)
    st.session_state[_NAME] = name
    return _opened(url, token)
