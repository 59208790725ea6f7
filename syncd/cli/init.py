"""`syncd init`: start a config, by questions on a terminal or by options, then let the doctor look at it.

The questions are the fields of the `Config` of what is chosen. Refuses to overwrite a file without `--force`, to put a
secret into the config, to ask where nobody can answer, and to leave a config behind that `syncd validate` would refuse.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import typer

from syncd.cli.doctor import run_doctor
from syncd.cli.main import Call
from syncd.cli.output import clean, paint, say, show_error
from syncd.clock import SystemClock
from syncd.config import Config, load, open_source
from syncd.config.edges import NAMES, config_class
from syncd.config.loader import secret_fields
from syncd.config.schema import json_schema
from syncd.errors import ConfigError, SyncdError
from syncd.model import Collection
from syncd.sources.base import selected
from syncd.upkeep.doctor import quick

_SCHEMA = "syncd.schema.json"
_OPTIONAL = ("prefix", "region", "endpoint")  # worth a question although they have a default
_SHOWN = 30  # Collections to choose from
_TEXT = """\
# yaml-language-server: $schema=./{schema}
#
# What syncd backs up where. Editors explain each key by the schema named above; `syncd schema > {schema}` renews it.
# Check this file with `syncd validate`, try it with `syncd doctor`, run it once with `syncd sync`, for ever with `syncd run`.

sources:
  {source}:
{source_lines}

targets:
  {target}:
{target_lines}

syncs:
  {source}:
    source: {source}
    target: {target}
    {projects}
    every: {every}               # for `syncd run`
    # on_delete: trash      # or delete, or keep the file of a task that is gone
    # trash_retention: 30d

# http: 127.0.0.1:8642      # page, health, metrics and webhooks of `syncd run`
"""


def run_init(call: Call, given: Mapping[str, str], projects: Sequence[str], *, force: bool) -> int:
    """Write the config and what belongs to it, then examine it; the exit code is the doctor's. given: options by name, empty ones were not given."""
    folder = call.config.absolute().parent
    if call.config.exists() and not force:
        raise typer.BadParameter(f"{call.config} is there already: name another file with -c, or overwrite it with --force")
    if not os.access(folder, os.W_OK):
        raise typer.BadParameter(f"{folder}: this user may not write there, or it is missing")
    wizard = _Wizard({name: value for name, value in given.items() if value}, folder, asks=sys.stdin.isatty())
    new = call.config.with_name(f".{call.config.name}.new")
    try:
        while not _drafted(wizard, new, projects):
            say("Once more, please; Enter keeps an answer.", sys.stderr)
        (folder / _SCHEMA).write_text(json.dumps(json_schema(), indent=2) + "\n", encoding="utf-8")
        new.replace(call.config)
    except BaseException as error:
        wizard.forget()
        new.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise SyncdError(f"{error.filename}: can't be written: {error.strerror}") from error
        raise
    if not call.json:
        say(f"{paint('wrote', 'ok')} {clean(', '.join([str(call.config), _SCHEMA, *(path.name for path in wizard.secrets)]))}\n")
    code = run_doctor(call, None)
    if not (code or call.json):
        say("\n`syncd sync` backs it up once, `syncd run` for ever")
    return code


def _drafted(wizard: _Wizard, path: Path, projects: Sequence[str]) -> bool:
    """Whether a config that loads stands there; on a terminal the Source has also shown what there is to choose from."""
    wizard.forget()
    source, target = wizard.edge("source"), wizard.edge("target")
    every = wizard.answer("every", "How often to look for changes", "60s")
    if wizard.given:
        raise typer.BadParameter(f"{', '.join(map(_option, wizard.given))}: of no use with {source['type']} and {target['type']}")

    def write(chosen: Sequence[str]) -> Config:
        named = f"projects: [{', '.join(map(_literal, chosen))}]" if chosen else '# projects: [12, "Cats *"]   # ids or title patterns'
        names = {"schema": _SCHEMA, "source": source["type"], "target": target["type"], "projects": named, "every": every}
        path.write_text(_TEXT.format(source_lines=_lines(source), target_lines=_lines(target), **names), encoding="utf-8")
        return load(path, os.environ)

    try:
        config = write(projects)
        if wizard.asks and not projects:
            with closing(open_source(quick(config), source["type"], SystemClock())) as opened:
                chosen = wizard.choice(opened.collections())
            write(chosen)
    except SyncdError as error:
        if isinstance(error, ConfigError):  # nobody has seen that file
            error = ConfigError([replace(problem, file="init", line=0) for problem in error.problems])
        if not wizard.asks:
            raise error from None
        show_error(error)
        return False
    return True


@dataclass
class _Wizard:
    """Questions and answers. Each option answers once; a person who is asked again finds the last answer as default.

    secrets: files made for them beside the config.
    """

    given: dict[str, str]
    folder: Path
    asks: bool
    said: dict[str, str] = field(default_factory=dict)
    secrets: list[Path] = field(default_factory=list)

    def forget(self) -> None:
        """Leave no secret behind that no config names."""
        while self.secrets:
            self.secrets.pop().unlink(missing_ok=True)

    def edge(self, kind: str) -> dict[str, str]:
        """The lines of a Source or Target in the config, as YAML."""
        known, listed = NAMES[f"{kind}s"], ", ".join(NAMES[f"{kind}s"])

        def check(answer: str) -> str:
            if answer not in known:
                raise typer.BadParameter(f"there is no {answer!r}; known: {listed}")
            return answer

        chosen = self.answer(kind, f"{kind.capitalize()} type ({listed})", known[0] if self.asks else None, check)
        model, lines = config_class(f"{kind}s", chosen), {"type": chosen}
        for name, about in model.model_fields.items():
            if name in secret_fields(model) and about.is_required():
                lines |= self.secret(chosen, name)
            elif name != "type" and (about.is_required() or name in _OPTIONAL or name in self.given):
                question = f"{name} ({about.description.rstrip('.')})" if about.description else name
                option, default = f"{kind}_path" if name == "path" else name, None if about.is_required() else ""
                if answer := self.answer(option, question, default):
                    lines[name] = self.path(answer) if name == "path" else _literal(answer)
        return lines

    def choice(self, found: Sequence[Collection]) -> list[str]:
        for collection in found[:_SHOWN]:
            say(f"  {clean(collection.id)}  {clean(collection.title)}", sys.stderr)
        if len(found) > _SHOWN:
            say(f"  ... and {len(found) - _SHOWN} more", sys.stderr)

        def check(answer: str) -> str:
            for pattern in _split(answer):
                if not any(selected([pattern], c.id, c.title) for c in found):
                    raise typer.BadParameter(f"there is no {pattern!r}")
            return answer

        return _split(self.answer("project", "Which: ids or title patterns, separated by commas", "all", check))

    def answer(self, option: str, question: str, default: str | None, check: Callable[[str], str] = str) -> str:
        """What was given, else what a person says, else the default. check: raises BadParameter."""
        if answer := self.given.pop(option, ""):
            self.said[option] = check(answer)
        elif self.asks:
            default = self.said.get(option, default)
            shown = question if default != "" else f"{question} [none]"
            self.said[option] = typer.prompt(shown, default, show_default=bool(default), err=True, value_proc=check)
        elif default is None:
            raise typer.BadParameter(f"{_option(option)} is needed: there is no terminal to ask on")
        return self.said.get(option, default or "")

    def secret(self, chosen: str, name: str) -> dict[str, str]:
        """Its line; one that is typed gets a file of its own."""
        if variable := self.given.pop("token_env", ""):
            return {name: f"${{{variable}}}"}
        if file := self.given.pop("token_file", ""):
            return {f"{name}_file": self.path(file)}
        if not self.asks:
            raise typer.BadParameter("--token-file or --token-env is needed: there is no terminal to ask on")
        held = self.folder / f"{chosen}.{name}"
        if held.exists():
            raise typer.BadParameter(f"{held.name} is there already: give it with --token-file, or move it away")
        question, last = f"{name} (typed unseen, kept in a file beside the config)", self.said.get(name)
        self.said[name] = typer.prompt(question, last, hide_input=True, show_default=False, err=True)
        self.secrets.append(held)
        held.touch(0o600)
        held.write_text(self.said[name] + "\n", encoding="utf-8")
        return {f"{name}_file": f"./{held.name}"}

    def path(self, path: str) -> str:
        """As it stands in the config: relative paths start at its folder, those of a person where the person is."""
        return _literal(path if self.folder == Path.cwd() else str(Path(path).expanduser().absolute()))


def _split(answer: str) -> list[str]:
    return [] if answer == "all" else [pattern.strip() for pattern in answer.split(",")]


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _lines(values: Mapping[str, str]) -> str:
    return "\n".join(f"    {name}: {value}" for name, value in values.items())


def _literal(text: str) -> str:
    return json.dumps(text.replace("$", "$$"), ensure_ascii=False)
