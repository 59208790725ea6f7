"""The page in a real Chromium: nothing hostile runs, nothing leaves the machine, it refreshes itself, and it can be used without eyes or mouse.

Skipped where Chromium is absent (`.ci/browser` installs it), unless SYNCD_LIVE is set: then its absence is a failure.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Dialog, Page, Request, sync_playwright

from syncd.config.shape import Http
from syncd.daemon import web
from syncd.daemon.service import ConfigState
from tests.fakes.service import HOSTILE, NOW, FakeService, ledger, sample

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ("no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking", "disable-component-update", "disable-sync")
PATHS = {
    "all": "/", "hostile": "/syncs/" + quote(HOSTILE, safe=""), "guarded": "/syncs/street-scenes", "failed": "/syncs/xray-chest",
    "partial": "/syncs/invoices", "running": "/syncs/satellite", "never": "/syncs/new-project", "empty": "/?state=zzz", "fault": "/nope",
}  # fmt: skip

pytestmark = [
    pytest.mark.skipif(not CHROMIUM and not os.environ.get("SYNCD_LIVE"), reason="Chromium is not installed: run .ci/browser"),
    pytest.mark.xdist_group("browser"),
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    assert CHROMIUM, "Chromium is not installed: run .ci/browser"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[f"--{flag}" for flag in FLAGS])
        yield browser
        browser.close()


@pytest.fixture
def service() -> FakeService:
    service = sample()
    service.config_state = ConfigState(Path("/etc/syncd/syncd.yaml"), NOW, [f"syncd.yaml:3:5: {HOSTILE}"])
    service.reasons = [f"{HOSTILE} does not answer"]
    return service


@pytest.fixture
def address(service: FakeService) -> Iterator[str]:
    server = web.serve(service, Http(listen="127.0.0.1:0"))
    yield "http://{}:{}".format(*server.address)
    server.stop()


class Watched:
    """A tab that remembers every request, dialog and complaint."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.requests: list[str] = []
        self.trouble: list[str] = []
        page.on("request", self._asked)
        page.on("dialog", self._dialog)
        page.on("pageerror", lambda error: self.trouble.append(f"error: {error}"))
        page.on("console", lambda message: self.trouble.append(f"console: {message.text}") if message.type == "error" else None)

    def _asked(self, request: Request) -> None:
        self.requests.append(request.url)

    def _dialog(self, dialog: Dialog) -> None:
        self.trouble.append(f"dialog: {dialog.message}")
        dialog.dismiss()


@pytest.fixture
def tab(chromium: Browser) -> Iterator[Watched]:
    context = chromium.new_context()
    yield Watched(context.new_page())
    context.close()


@pytest.mark.parametrize("path", [path for name, path in PATHS.items() if name != "fault"], ids=lambda path: path)
def test_nothing_hostile_runs_and_nothing_leaves_the_machine(tab: Watched, address: str, path: str) -> None:
    tab.page.goto(address + path)
    tab.page.evaluate("refresh()")  # what the refresh puts in is as harmless
    assert tab.trouble == [], "no dialog, no script error, nothing the content security policy had to stop"
    assert tab.page.locator("main script, main img, main iframe, main b").count() == 0
    assert all(url.startswith(address + "/") for url in tab.requests)
    assert {url.removeprefix(address).partition("?")[0] for url in tab.requests} >= {"/static/style.css", "/static/page.js", "/static/icon.svg"}


def test_the_policy_would_stop_what_escaping_let_through(tab: Watched, address: str) -> None:
    """The second wall: script that stands in the page all the same is refused by the browser."""
    tab.page.goto(address)
    tab.page.evaluate("() => { const s = document.createElement('script'); s.textContent = 'alert(3)'; document.body.append(s) }")
    tab.page.evaluate("() => { document.querySelector('main').innerHTML = '<img src=\"https://evil.example/x\" onerror=\"alert(4)\">' }")
    tab.page.wait_for_function("document.querySelector('main img').complete")
    assert not [trouble for trouble in tab.trouble if trouble.startswith("dialog")]
    assert sum("Content Security Policy" in trouble for trouble in tab.trouble) >= 3


def test_a_hostile_name_is_text_and_its_link_leads_to_its_page(tab: Watched, address: str) -> None:
    tab.page.goto(address)
    tab.page.get_by_role("row").get_by_role("link", name=HOSTILE).click()
    assert tab.page.get_by_role("heading", level=1).inner_text() == HOSTILE
    assert tab.page.get_by_role("rowheader", name=HOSTILE).is_visible()
    assert tab.trouble == []


def test_it_refreshes_and_keeps_what_the_reader_is_doing(tab: Watched, address: str, service: FakeService) -> None:
    tab.page.goto(address)
    tab.page.locator("#sync-cats").focus()
    service.ledgers = [ledger("cats", tasks=77_001)]
    tab.page.evaluate("refresh()")
    assert tab.page.get_by_role("row", name="cats").get_by_text("77,001").is_visible()
    assert tab.page.evaluate("document.activeElement.id") == "sync-cats"
    assert tab.page.title() == "syncd"
    assert tab.page.get_by_role("status").inner_text() == "Backups go on, but look below"


def test_by_itself_and_not_while_text_is_marked(tab: Watched, address: str, service: FakeService) -> None:
    tab.page.clock.install()
    tab.page.goto(address)
    service.ledgers = [ledger("first")]
    tab.page.clock.run_for(6000)
    tab.page.locator("#sync-first").wait_for()
    tab.page.evaluate("getSelection().selectAllChildren(document.querySelector('#sync-first'))")
    asked = len(tab.requests)
    tab.page.clock.run_for(20_000)
    assert len(tab.requests) == asked


def test_a_daemon_that_is_gone_is_said_and_not_shown_as_well(tab: Watched, service: FakeService) -> None:
    server = web.serve(service, Http(listen="127.0.0.1:0"))
    tab.page.goto("http://{}:{}".format(*server.address))
    assert tab.page.get_by_role("alert").count() == 0
    server.stop()
    tab.page.evaluate("refresh()")
    assert "what you see is from 2026-11-20 12:00:00 UTC" in tab.page.get_by_role("alert").inner_text()


def test_the_command_is_copied(chromium: Browser, address: str) -> None:
    context = chromium.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto(address)
    page.get_by_role("button", name="Copy the command for street-scenes").click()
    page.get_by_text("Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == "syncd sync street-scenes --confirm-deletes 9f3c1a7be02d -c /etc/syncd/syncd.yaml"
    context.close()


def test_without_javascript_everything_is_there(chromium: Browser, address: str) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    page.get_by_role("link", name="failed 2").click()
    assert page.locator("tbody tr").count() == 2
    page.get_by_role("link", name="xray-chest").click()
    assert page.locator("tbody tr").count() == 24
    assert page.get_by_role("button", name="Copy").count() == 0, "a button that would do nothing is not shown"
    context.close()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_it_can_be_used_without_eyes(chromium: Browser, address: str, scheme: str, width: int) -> None:
    """axe-core finds nothing: names, roles, headers, landmarks, contrast AA; and a phone never scrolls sideways."""
    context = chromium.new_context(color_scheme=scheme, viewport={"width": width, "height": 800}, reduced_motion="reduce")  # type: ignore[arg-type]
    page = context.new_page()
    for name in ("all", "hostile", "running", "fault"):
        page.goto(address + PATHS[name])
        found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]})
        assert found.violations_count == 0, f"{name}: {found.generate_report()}"
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
    context.close()


def test_with_the_keyboard_alone(tab: Watched, address: str) -> None:
    tab.page.goto(address)
    tab.page.keyboard.press("Tab")
    assert tab.page.evaluate("document.activeElement.textContent") == "Skip to content"
    tab.page.keyboard.press("Enter")
    assert tab.page.evaluate("document.activeElement.id") == "main"


@pytest.mark.parametrize(("role", "name"), [("link", "failed 2"), ("link", "cats"), ("button", "Copy the command for street-scenes")])
def test_a_refresh_leaves_the_keyboard_where_it_is(tab: Watched, address: str, role: Literal["link", "button"], name: str) -> None:
    tab.page.goto(address)
    tab.page.get_by_role(role, name=name, exact=True).focus()
    tab.page.evaluate("refresh()")
    focused = "document.activeElement.getAttribute('aria-label') || document.activeElement.textContent"
    assert tab.page.evaluate(focused) == name


def test_hundreds_of_syncs_with_long_names_on_a_phone(chromium: Browser, address: str, service: FakeService) -> None:
    service.ledgers = [ledger("n" * 95 + f"{n:03}") for n in range(500)]
    for one in service.ledgers:
        one.wiring = one.rules.model_copy(update={"source": "s" * 100, "target": "t" * 100}), *one.wiring[1:]
    context = chromium.new_context(viewport={"width": 360, "height": 800})
    page = context.new_page()
    page.goto(address)
    assert page.locator("tbody tr").count() == 500
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    context.close()
