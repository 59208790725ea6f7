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
_TRASHED = re.compile(r"\d{4}-\d\d-\d\d/[^/]+\.[0-9a-f]{12}\.json")
_HISTORIED = re.compile(r"([^/]+)/(\d{8}T\d{6}\.\d{6}Z)(?:\.json|/([^/]+))")
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


@dataclass(frozen=True, slots=True)
class Trashed:
    """What the key of a file in the trash says: ids, and the day (`YYYY-MM-DD`) it came there."""

    project: str
    task: str
    day: str


@dataclass(frozen=True, slots=True)
class Historied:
    """What the key of an earlier TaskFile says: ids, and when another one took its place (microseconds)."""

    project: str
    task: str
    at: int


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

    def trash(self, project: str, task: str, digest: bytes, at: int) -> str:
        """`<project>/_trash/<date>/<task>.<12 hex>.json`; `at` in microseconds, the UTC date of the deletion."""
        return f"{self.folder(project)}_trash/{format_date(at)}/{encode(task)}.{digest.hex()[:12]}.json"

    def trash_settings(self, project: str, digest: bytes, at: int) -> str:
        """`<project>/_trash/<date>/_project.<12 hex>.json`."""
        return f"{self.folder(project)}_trash/{format_date(at)}/_project.{digest.hex()[:12]}.json"

    def history(self, project: str, task: str, at: int) -> str:
        """`<project>/_history/<task>/<time>.json`, a side file's `.../<time>/<name>`; the time it was replaced, as `20261120T120000.000000Z`."""
        owner, side, name = task.partition(SIDE)
        return f"{self.histories(project, owner)}{format_time(at).translate(_COMPACT)}{f'/{encode(name)}' if side else '.json'}"

    def histories(self, project: str, task: str) -> str:
        """The folder, ending in `/`, of all that `history` gives for this task and its side files."""
        return f"{self.folder(project)}_history/{encode(task.partition(SIDE)[0])}/"

    def ids(self, key: str) -> tuple[str, str | None] | None:
        """The Collection and the task whose file stands at this key; task None: the Collection's settings. None for a key that syncd never writes for
        them, and for one with a shortened id.
        """
        return None if "~~" in key else self.named(key)

    def named(self, key: str) -> tuple[str, str | None] | None:
        """The same, a shortened id as the key shows it."""
        if key.endswith("/_project.json"):
            project = self._project(key.removesuffix("/_project.json"))
            return None if project is None else (project, None)
        before, _, rest = self.template.partition("{project}")
        between, _, after = (re.escape(part) for part in rest.removesuffix(".json").partition("{task}"))
        kinds = "|".join(KINDS)
        parts = re.fullmatch(rf"{re.escape(before)}((?:(?:{kinds})/)?([^/]+)){between}([^/]+){after}(?:\.json|/([^/]+))", key)
        if parts is None or not all(map(_ours, filter(None, parts.group(2, 3, 4)))):
            return None
        return _plain(parts[1]), decode(parts[3]) + (SIDE + decode(parts[4]) if parts[4] else "")

    def trashed(self, key: str) -> Trashed | None:
        """What a key in some Collection's trash stands for; None for any other key."""
        folder, found, rest = key.partition("/_trash/")
        day, _, name = rest.partition("/")
        task = name.rsplit(".", 2)[0]
        if not found or not _TRASHED.fullmatch(rest) or (project := self._project(folder)) is None or not (task == "_project" or _ours(task)):
            return None
        return Trashed(project, decode(task), day)

    def historied(self, key: str) -> Historied | None:
        """What the key of an earlier TaskFile stands for; None for any other key."""
        folder, found, rest = key.partition("/_history/")
        parts = _HISTORIED.fullmatch(rest)
        if not found or parts is None or (project := self._project(folder)) is None or not all(map(_ours, filter(None, parts.group(1, 3)))):
            return None
        try:
            at = parse_time(parts[2])
        except ValueError:
            return None
        return Historied(project, decode(parts[1]) + (SIDE + decode(parts[3]) if parts[3] else ""), at)

    def _project(self, folder: str) -> str | None:
        """The Collection that this folder, without its last slash, belongs to."""
        before, _, after = self.template.partition("{project}")
        after = after.partition("/")[0]
        if not folder.startswith(before) or not folder.endswith(after):
            return None
        project = folder[len(before) : len(folder) - len(after)]
        kind, _, id_ = project.rpartition("/")
        return _plain(project) if id_ and kind in {"", *KINDS} and _ours(id_) else None


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


def _plain(folder: str) -> str:
    kind, inner, id_ = folder.rpartition("/")
    return kind + inner + decode(id_)


def _ours(part: str) -> bool:
    """Whether `encode` makes this part of some id; a shortened one tells too little to be quite sure."""
    return bool(_SHORTENED.fullmatch(part)) or ("~~" not in part and encode(decode(part)) == part)


def _percent(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in _utf8(found[0]))


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # file names may hold bytes that are no text
