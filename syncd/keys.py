"""Where each file of a Target stands: ids to keys, one-to-one (I6).

Pure, forward only. Refuses templates under which two tasks, or a task and syncd's own files, could meet.

How an id is spelled, so that no two meet on any store, a file system that folds case or normalises Unicode included:
- ASCII letters, digits and `-._@=, ` stay; any other character is percent-encoded (its UTF-8 bytes). So are a leading `_` (syncd's own names),
  a leading or trailing `.` or space, the dot of a final `.json` (a task's folder never equals another one's file) and the first letter of a
  Windows device name.
- Upper-case letters stay readable; a suffix tells which they are: `~` and, in hex, one bit per character of the id from the first on. `IMG_01` is
  `IMG_01~7`, `img_01` stays itself. (`%49%4D%47_01` would be as safe, and nobody could read it.)
- The ids of other Collections than projects start with their kind (`KINDS`), which is a folder of its own; a plain id of that name has its first
  letter encoded.
- A side file's id is its task's, `SIDE` and a name; it stands in a folder beside the task's file, `<task>/<name>`.
- More than 180 characters: the first 100, `~~` and the sha256 of the id. The empty id is `~`.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

from syncd.clock import format_date, format_time, parse_time

OWNER = "_syncd/owner.json"
CHANGES = "_syncd/changes/"
KINDS = ("datasets", "slices", "model_runs")
SIDE = "\udfff"  # a code point that no text of a Source can hold

_LONGEST = 180  # leaves room for suffixes within the 255 bytes that file systems allow a name
_KEPT = 100  # characters that stay readable of a longer one
_UNSAFE = re.compile(
    r"""[^a-z0-9._@=, -] | \A[_.\ ] | [.\ ]\Z | \.(?=json\Z)
    | \A(?=(?:con|prn|aux|nul|com\d|lpt\d)(?:[.\ ]|\Z)|(?:datasets|slices|model_runs)\Z)[a-z]""",
    re.ASCII | re.IGNORECASE | re.VERBOSE,
)
_SHORTENED = re.compile(r"(?![._ ])[\w.@=, %~-]{100}~~[0-9a-f]{64}", re.ASCII)
_COMPACT = str.maketrans("", "", "-:")
_FIELD = re.compile(r"\{[^{}]*\}")
_LITERAL = re.compile(r"[A-Za-z0-9._@=,/-]*")


def feed(run_id: str) -> str:
    """The key of a Run's change feed, in the folder of the day the Run began: a run id starts with `YYYYMMDD`."""
    return f"{CHANGES}{run_id[:4]}-{run_id[4:6]}-{run_id[6:8]}/{encode(run_id)}.ndjson"


@lru_cache(maxsize=1024)  # the Collection's id comes with each of its tasks
def encode(text: str) -> str:
    """The one path part that stands for an id."""
    part = _UNSAFE.sub(_percent, text)
    if text != text.lower():
        mask = sum(1 << index for index, letter in enumerate(text) if "A" <= letter <= "Z")
        part += f"~{mask:x}" if mask else ""
    if len(part) > _LONGEST:
        return f"{part[:_KEPT]}~~{hashlib.sha256(_utf8(text)).hexdigest()}"
    return part or "~"


def decode(part: str) -> str:
    """The id that a path part stands for; a shortened one stays as it is, since its id is in the file alone."""
    if "~~" in part:
        return part
    return unquote(part.partition("~")[0], errors="surrogatepass")


class Named(NamedTuple):
    """Whose file stands at a key. task None: the Collection's settings; home: the key of its own place; where: `trash`, `history`, or empty: it is at
    home; at: when it came to the trash (the beginning of that day), or when another one took its place (microseconds).
    """

    project: str
    task: str | None
    home: str
    where: str = ""
    at: int = 0


@dataclass(frozen=True, slots=True)
class Layout:
    """The keys of one Sync. Raises ValueError, in one sentence, for a template that is not one-to-one."""

    template: str = "{project}/{task}.json"

    def __post_init__(self) -> None:
        if sorted(_FIELD.findall(self.template)) != ["{project}", "{task}"]:
            raise ValueError("the key must hold {project} and {task}, each once, and no other field")
        if not _LITERAL.fullmatch(_FIELD.sub("", self.template)):
            raise ValueError("the key may hold, beside its two fields, only ASCII letters, digits and the characters . _ - @ = , /")
        if "/" not in self.template.partition("{project}")[2].partition("{task}")[0]:
            raise ValueError("the key must have {project} before {task} and a / between them, or two tasks could get one key")
        if not self.template.endswith(".json"):
            raise ValueError("the key must end in .json")
        for part in self.template.split("/"):
            if not part or part[0] in "._" or part[-1] == ".":
                raise ValueError("no part of the key may be empty, begin with . or _ (syncd's own names do) or end with a dot")
            if len(_FIELD.sub("", part)) > 255 - _LONGEST:
                raise ValueError(f"no part of the key may have more than {255 - _LONGEST} characters beside its field")

    def task(self, project: str, task: str) -> str:
        """`<project>/<task>.json`, or what the template makes of it; a side file's `<project>/<task>/<name>`."""
        owner, side, name = task.partition(SIDE)
        key = self.template.replace("{project}", _folder(project)).replace("{task}", encode(owner))
        return f"{key.removesuffix('.json')}/{encode(name)}" if side else key

    def folder(self, project: str) -> str:
        """The prefix, ending in `/`, that every key of this Collection has and no key of another one."""
        before, _, after = self.template.partition("{project}")
        return f"{before}{_folder(project)}{after.partition('/')[0]}/"

    def settings(self, project: str) -> str:
        """`<project>/_project.json`."""
        return f"{self.folder(project)}_project.json"

    def trash(self, project: str, task: str | None, digest: bytes, at: int) -> str:
        """`<project>/_trash/<date>/<task>.<12 hex>.json`, of settings `_project...`; `at` in microseconds, the UTC date of the deletion."""
        return f"{self.folder(project)}_trash/{format_date(at)}/{'_project' if task is None else encode(task)}.{digest.hex()[:12]}.json"

    def history(self, project: str, task: str, at: int) -> str:
        """`<project>/_history/<task>/<time>.json`, a side file's `.../<time>/<name>`; the time it was replaced, as `20261120T120000.000000Z`."""
        owner, side, name = task.partition(SIDE)
        return f"{self.histories(project, owner)}{format_time(at).translate(_COMPACT)}{f'/{encode(name)}' if side else '.json'}"

    def histories(self, project: str, task: str) -> str:
        """The folder, ending in `/`, of all that `history` gives for this task and its side files."""
        return f"{self.folder(project)}_history/{encode(task.partition(SIDE)[0])}/"

    def named(self, key: str) -> Named | None:
        """Whose file it is, a shortened id as the key shows it; None for a key that syncd never writes for any."""
        found = _pattern(self.template).fullmatch(key)
        if found is None:
            return None
        part = found.groupdict("")
        task, side, when = part["task"] or part["gone"] or part["past"], part["side"] or part["beside"], part["day"] or part["time"]
        if not all(map(_ours, filter(None, (part["id"], task, side)))):
            return None
        try:
            at = parse_time(when) if when else 0
        except ValueError:
            return None
        owner, both, name = decode(task).partition(SIDE)
        if both:  # the trash has them in one part
            task, side = encode(owner), encode(name)
        id_ = decode(task) + (SIDE + decode(side) if side else "") if task else None
        home = part["folder"] + (self.template.partition("{project}")[2].partition("/")[2].replace("{task}", task) if task else "_project.json")
        home = f"{home.removesuffix('.json')}/{side}" if side else home
        return Named(part["kind"] + decode(part["id"]), id_, home, "trash" if part["day"] else "history" if when else "", at)


@lru_cache
def _pattern(template: str) -> re.Pattern[str]:
    """Of every key of a Layout."""
    before, _, rest = template.removesuffix(".json").partition("{project}")
    between, _, after = rest.partition("{task}")
    before, end, inner, after = map(re.escape, (before, *between.split("/", 1), after))
    return re.compile(
        rf"""(?P<folder>{before}(?P<kind>(?:(?:{"|".join(KINDS)})/)?)(?P<id>[^/]+){end}/)
        (?: _project\.json
        | _trash/(?P<day>[12]\d{{3}}-\d\d-\d\d)/(?:_project|(?P<gone>[^/]+))\.[0-9a-f]{{12}}\.json
        | _history/(?P<past>[^/]+)/(?P<time>\d{{8}}T\d{{6}}\.\d{{6}}Z)(?:\.json|/(?P<beside>[^/]+))
        | {inner}(?P<task>[^/]+){after}(?:\.json|/(?P<side>[^/]+)) )""",
        re.ASCII | re.VERBOSE,
    )


def is_side(task: str) -> bool:
    """Whether it is the id of a side file, which is no task."""
    return SIDE in task


def shown(task: str) -> str:
    """The id as people read it: a side file's as `<task>/<name>`."""
    return task.replace(SIDE, "/")


def kind_of(collection: str) -> str:
    """Which of `KINDS` a Collection is, by its id; empty for a project."""
    kind, inner, _ = collection.partition("/")
    return kind if inner and kind in KINDS else ""


def _folder(project: str) -> str:
    kind = kind_of(project)
    return f"{kind}/{encode(project[len(kind) + 1 :])}" if kind else encode(project)


def _ours(part: str) -> bool:
    """Whether `encode` makes this part of some id; a shortened one tells too little to be quite sure."""
    return bool(_SHORTENED.fullmatch(part)) or ("~~" not in part and encode(decode(part)) == part)


def _percent(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in _utf8(found[0]))


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # file names may hold bytes that are no text
