"""A real server with worker and dashboard in processes of their own, and a headless chromium."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

PATIENCE = 180.0  # seconds for anything to appear on a busy machine


@dataclasses.dataclass
class Site:
    """Addresses of the dashboard and the API, and a token of the administrator."""

    url: str
    api: str
    token: str


def _free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """`bitfront serve --dashboard` with one worker."""
    place = tmp_path_factory.mktemp("site")
    api, dashboard = _free_port(), _free_port()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("BITFRONT_") or k == "BITFRONT_CACHE"}
    environment |= {"XDG_CONFIG_HOME": str(place / "config"), "OMP_NUM_THREADS": "1"}
    options = ["--store", f"sqlite:///{place}/store.db", "--outputs", str(place / "jobs"), "--executor", "local"]
    options += ["--workers", "1", "--port", str(api), "--dashboard", "--dashboard-port", str(dashboard), "--json"]
    program = subprocess.Popen(
        [sys.executable, "-m", "bitfront.service.cli", "serve", *options],
        env=environment,
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
    )
    try:
        started = json.loads(program.stdout.readline())
        _wait(f"http://127.0.0.1:{dashboard}/_stcore/health")
        yield Site(f"http://127.0.0.1:{dashboard}", started["url"], started["token"])
    finally:
        program.send_signal(signal.SIGTERM)
        try:
            program.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(program.pid, signal.SIGKILL)
            raise


def _wait(url):
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            if answer.status == 200:
                return
        time.sleep(0.2)
    raise TimeoutError(url)


@pytest.fixture(scope="session")
def chromium():
    """Debian's chromium, which `.ci/run` installs."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("no chromium on PATH; .ci/run installs it")
        pytest.skip("no chromium on PATH: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@pytest.fixture
def tab(chromium, tmp_path):
    """An empty tab of its own session; nothing may be wrong on its console at the end."""
    context = chromium.new_context(viewport={"width": 1280, "height": 1400}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(PATIENCE * 1000)
    yield page
    context.close()


@pytest.fixture
def signed_in(tab, site):
    """A tab in which the administrator has signed in, at the front page."""
    tab.goto(site.url)
    tab.get_by_label("Token", exact=True).fill(site.token)
    tab.get_by_role("button", name="Sign in").click()
    tab.get_by_role("heading", name="Jobs", exact=True).wait_for()
    return tab
