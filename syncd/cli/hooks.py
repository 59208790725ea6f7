"""`syncd hooks`: tell a labeling tool to call the daemon when something changes, so that a Run starts at once.

Refuses to touch or show a webhook that is not ours, since its address may be a secret: ours ends in `/hooks/<sync>` and carries our header.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from urllib.parse import quote, urlsplit

import typer

from syncd.cli.jobs import read
from syncd.cli.main import Call
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
    with _opened(call, sync) as (hooks, ours, titles, headers):
        if not headers:
            raise SyncdError(f"sync {sync} has no secret that a call could prove: give it `hook_secret_file:`, any long random text")
        for project, title in titles.items():
            known = [hook for hook in ours if hook.project == project and hook.url == address]
            right = next((hook for hook in known if _right(hook, headers)), None)
            if not right:
                hooks.put(project, address, headers)
            for hook in known:
                if hook is not right:
                    hooks.remove(hook)
            rows.append((project, title, "was there" if right else "installed", address))
    return _show(call, sync, rows, f"no project yet: run this again when sync {sync} has one")


def listed(call: Call, sync: str) -> int:
    """Ours, and which of them no longer fit the config."""
    with _opened(call, sync) as (_, ours, titles, headers):
        words = {True: "ours", False: "ours, to be installed again"}
        rows = [(hook.project, titles.get(hook.project, ""), words[_right(hook, headers)], hook.url) for hook in ours]
    return _show(call, sync, rows)


def remove(call: Call, sync: str, url: str) -> int:
    """Ours alone, of projects that the Sync selects no longer too; when an address is given, those of that daemon."""
    addresses, rows = {_address(sync, url)} if url else None, list[Row]()
    with _opened(call, sync) as (hooks, ours, titles, _):
        for hook in ours:
            if addresses is None or hook.url in addresses:
                hooks.remove(hook)
                rows.append((hook.project, titles.get(hook.project, ""), "removed", hook.url))
    return _show(call, sync, rows)


@contextmanager
def _opened(call: Call, sync: str) -> Iterator[tuple[Hooks, list[Hook], dict[str, str], dict[str, str]]]:
    """The server's webhooks, those that are ours, the titles of the Sync's projects, and the headers that ours carry; none when it takes no calls."""
    config, _ = read(call, [sync])
    rules = config.syncs[sync]
    with closing(open_source(config, sync, SystemClock())) as source:
        if not isinstance(source, Hooked):
            raise SyncdError(f"source {rules.source}: syncd can't install webhooks there; Labelbox' own are made in its settings")
        headers = {SECRET_HEADER: rules.hook_secret.get_secret_value()} if rules.hook_secret else {}
        hooks, path = source.hooks(), f"/hooks/{quote(sync)}"
        ours = [hook for hook in hooks.all() if SECRET_HEADER in hook.headers and urlsplit(hook.url).path.endswith(path)]
        yield hooks, ours, {collection.id: collection.title for collection in source.collections()}, headers


def _address(sync: str, url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment or "@" in parts.netloc:
        raise typer.BadParameter("--url is where the labeling tool reaches the daemon, like https://syncd.example.com")
    return url.rstrip("/") + f"/hooks/{quote(sync)}"


def _right(hook: Hook, headers: dict[str, str]) -> bool:
    return hook.wakes and hook.headers == headers


def _show(call: Call, sync: str, rows: Sequence[Row], none: str = "no webhooks of ours") -> int:
    for project, _, result, url in rows:
        call.tell({"sync": sync, "project": project, "result": result, "url": url})
    if rows:
        call.table(("PROJECT", "TITLE", "WEBHOOK", "ADDRESS"), rows, left=4)
    else:
        call.say(none)
    return 0
