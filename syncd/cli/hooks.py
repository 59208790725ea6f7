"""`syncd hooks`: tell a labeling tool to call the daemon when something changes, so that a Run starts at once.

Refuses to touch a webhook that is not ours: ours has an address that ends in `/hooks/<sync>` and carries our header. Secrets are never shown, nor
more than the host of others' addresses, since those may be secrets themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from urllib.parse import quote, urlsplit

import typer

from syncd.cli.jobs import read
from syncd.cli.main import Call
from syncd.cli.output import say, table
from syncd.clock import SystemClock
from syncd.config import open_source
from syncd.daemon.hooks import SECRET_HEADER
from syncd.errors import SyncdError
from syncd.sources.base import Hook, Hooked, Hooks

Row = tuple[str, str, str, str]
"""Project, its title, what is with the webhook, its address."""


def install(call: Call, sync: str, url: str) -> int:
    """One webhook for each project of the Sync, and no second one."""
    address, rows = _address(sync, url), list[Row]()
    with _opened(call, sync) as (hooks, titles, headers):
        if not headers:
            raise SyncdError(f"sync {sync} has no secret that a call could prove: give it `hook_secret_file:`, any long random text")
        known = [hook for hook in hooks.all() if _ours(hook, sync) and hook.url == address]
        for project, title in titles.items():
            right = next((hook for hook in known if hook.project == project and _right(hook, headers)), None)
            if not right:
                hooks.put(project, address, headers)
            for hook in known:
                if hook.project == project and hook is not right:
                    hooks.remove(hook)
            rows.append((project, title, "was there" if right else "installed", address))
    return _show(call, sync, rows, f"no project yet: run this again when sync {sync} has one")


def listed(call: Call, sync: str) -> int:
    """Every webhook of the Sync's projects, and whose it is."""
    with _opened(call, sync) as (hooks, titles, headers):
        rows = [(hook.project, titles[hook.project], *_told(hook, sync, headers)) for hook in hooks.all() if hook.project in titles]
    return _show(call, sync, rows, "no webhooks")


def remove(call: Call, sync: str, url: str) -> int:
    """Ours alone, of projects that the Sync selects no longer too; when an address is given, those of that daemon."""
    addresses, rows = {_address(sync, url)} if url else None, list[Row]()
    with _opened(call, sync) as (hooks, titles, _):
        for hook in hooks.all():
            if _ours(hook, sync) and (addresses is None or hook.url in addresses):
                hooks.remove(hook)
                rows.append((hook.project, titles.get(hook.project, ""), "removed", hook.url))
    return _show(call, sync, rows, "no webhooks of ours")


@contextmanager
def _opened(call: Call, sync: str) -> Iterator[tuple[Hooks, dict[str, str], dict[str, str]]]:
    """The server's webhooks, the titles of the Sync's projects, and the headers that ours carry; none when it takes no calls."""
    config, _ = read(call, [sync])
    rules = config.syncs[sync]
    with closing(open_source(config, sync, SystemClock())) as source:
        if not isinstance(source, Hooked):
            raise SyncdError(f"source {rules.source}: syncd can't install webhooks there; Labelbox' own are made in its settings")
        headers = {SECRET_HEADER: rules.hook_secret.get_secret_value()} if rules.hook_secret else {}
        yield source.hooks(), {collection.id: collection.title for collection in source.collections()}, headers


def _address(sync: str, url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment or "@" in parts.netloc:
        raise typer.BadParameter("--url is where the labeling tool reaches the daemon, like https://syncd.example.com")
    return url.rstrip("/") + f"/hooks/{quote(sync)}"


def _ours(hook: Hook, sync: str) -> bool:
    return SECRET_HEADER in hook.headers and urlsplit(hook.url).path.endswith(f"/hooks/{quote(sync)}")


def _right(hook: Hook, headers: dict[str, str]) -> bool:
    return hook.wakes and hook.headers == headers


def _told(hook: Hook, sync: str, headers: dict[str, str]) -> tuple[str, str]:
    if _ours(hook, sync):
        return "ours" if _right(hook, headers) else "ours, to be installed again", hook.url
    return "not ours", f"{urlsplit(hook.url).scheme}://{urlsplit(hook.url).hostname}/..."


def _show(call: Call, sync: str, rows: Sequence[Row], none: str) -> int:
    if call.json:
        for project, _, result, url in rows:
            call.object({"sync": sync, "project": project, "result": result, "url": url})
    elif rows:
        table(("PROJECT", "TITLE", "WEBHOOK", "ADDRESS"), rows, left=4)
    else:
        say(none)
    return 0
