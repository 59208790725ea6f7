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
from syncd.model import Collection
from syncd.sources.base import Hook, Hooked, Hooks

Row = tuple[str, str, str, str]
"""Project, its title, what is with the webhook, its address."""


def install(call: Call, sync: str, url: str) -> int:
    """One webhook for each project of the Sync, and no second one."""
    address = _address(sync, url)
    rows: list[Row] = []
    with _opened(call, sync) as (hooks, collections, headers):
        if not headers:
            raise SyncdError(f"sync {sync} has no secret that a call could prove: give it `hook_secret_file:`, any long random text")
        known = [hook for hook in hooks.all() if _ours(hook, sync) and hook.url == address]
        for collection in collections:
            there = [hook for hook in known if hook.project == collection.id]
            right = [hook for hook in there if _right(hook, headers)]
            if not right:
                hooks.put(collection.id, address, headers, there[0] if there else None)
            for hook in there:
                if hook is not (right or there)[0]:
                    hooks.remove(hook)
            rows.append((collection.id, collection.title, "was there" if right else "renewed" if there else "installed", address))
    return _show(call, sync, rows, f"no project yet: run this again when sync {sync} has one")


def listed(call: Call, sync: str) -> int:
    """Every webhook of the Sync's projects, and whose it is."""
    rows: list[Row] = []
    with _opened(call, sync) as (hooks, collections, headers):
        titles = {collection.id: collection.title for collection in collections}
        for hook in hooks.all():
            if hook.project in titles and _ours(hook, sync):
                rows.append((hook.project, titles[hook.project], "ours" if _right(hook, headers) else "ours, to be installed again", hook.url))
            elif hook.project in titles:
                parts = urlsplit(hook.url)
                rows.append((hook.project, titles[hook.project], "not ours", f"{parts.scheme}://{parts.hostname}/..."))
    return _show(call, sync, rows, "no webhooks")


def remove(call: Call, sync: str, url: str) -> int:
    """Ours alone, of projects that the Sync selects no longer too; when an address is given, those of that daemon."""
    address = _address(sync, url) if url else ""
    rows: list[Row] = []
    with _opened(call, sync) as (hooks, collections, _):
        titles = {collection.id: collection.title for collection in collections}
        for hook in hooks.all():
            if _ours(hook, sync) and address in {"", hook.url}:
                hooks.remove(hook)
                rows.append((hook.project, titles.get(hook.project, ""), "removed", hook.url))
    return _show(call, sync, rows, "no webhooks of ours")


@contextmanager
def _opened(call: Call, sync: str) -> Iterator[tuple[Hooks, list[Collection], dict[str, str]]]:
    """The server's webhooks, the projects of the Sync, and the headers that ours carry; none when it takes no calls."""
    config, _ = read(call, [sync])
    rules = config.syncs[sync]
    with closing(open_source(config, sync, SystemClock())) as source:
        if not isinstance(source, Hooked):
            raise SyncdError(f"source {rules.source}: syncd can't install webhooks there; Labelbox' own are made in its settings")
        secret = rules.hook_secret
        yield source.hooks(), source.collections(), {SECRET_HEADER: secret.get_secret_value()} if secret else {}


def _address(sync: str, url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment or "@" in parts.netloc:
        raise typer.BadParameter("--url is where the labeling tool reaches the daemon, like https://syncd.example.com")
    return url.rstrip("/") + _path(sync)


def _path(sync: str) -> str:
    return f"/hooks/{quote(sync)}"


def _ours(hook: Hook, sync: str) -> bool:
    return SECRET_HEADER in hook.headers and urlsplit(hook.url).path.endswith(_path(sync))


def _right(hook: Hook, headers: dict[str, str]) -> bool:
    return hook.wakes and bool(headers) and hook.headers == headers


def _show(call: Call, sync: str, rows: Sequence[Row], none: str) -> int:
    if call.json:
        for project, _, result, url in rows:
            call.object({"sync": sync, "project": project, "result": result, "url": url})
    elif rows:
        table(("PROJECT", "TITLE", "WEBHOOK", "ADDRESS"), rows, left=4)
    else:
        say(none)
    return 0
