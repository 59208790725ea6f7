"""`syncd init`: start a config, by questions on a terminal or by options, then let the doctor look at it.

Refuses to overwrite a file without `--force`, to put a secret into the config (a file of its own or an environment variable holds it), to ask where
nobody can answer, and to leave a config behind that `syncd validate` would refuse.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import typer
from pydantic import ValidationError

from syncd.cli.doctor import run_doctor
from syncd.cli.main import Call
from syncd.cli.output import clean, log, paint, say
from syncd.clock import SystemClock
from syncd.config import load
from syncd.config.edges import NAMES, config_class, source_of
from syncd.config.loader import secret_fields
from syncd.config.schema import json_schema
from syncd.errors import ConfigError, SyncdError
from syncd.model import Collection
from syncd.sources.base import selected

_SCHEMA = "syncd.schema.json"
_OPTIONAL = ("prefix", "region", "endpoint")  # worth a question although they have a default
_SHOWN = 30  # Collections to choose from
_VARIABLE = re.compile(r"\$\{?(\w+)\}?")
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
    source, chosen = wizard.source(projects)
    target, _ = wizard.edge("target")
    every = wizard.answer("every", "How often to look for changes", "60s")
    if wizard.missing:
        raise typer.BadParameter(f"there is no terminal to ask on, so these are needed: {', '.join(wizard.missing)}")
    if wizard.given:
        raise typer.BadParameter(f"{', '.join(map(_option, wizard.given))}: of no use with {source['type']} and {target['type']}")
    text = _TEXT.format(
        schema=_SCHEMA, source=source["type"], target=target["type"], source_lines=_lines(source), target_lines=_lines(target), every=every,
        projects=f"projects: [{', '.join(map(_literal, chosen))}]" if chosen else '# projects: [12, "Cats *"]   # ids or title patterns; else all',
    )  # fmt: skip
    _write(call.config, text, {folder / name: secret for name, secret in wizard.secrets.items()}, force=force)
    if not call.json:
        say(f"{paint('wrote', 'ok')} {clean(str(call.config))}\n")
    return run_doctor(call, None)


@dataclass
class _Wizard:
    """Questions and answers. Each option answers once: where that turns out wrong, a person is asked.

    secrets: texts to be kept in files beside the config, by name; missing: options that were needed where nobody can be asked.
    """

    given: dict[str, str]
    folder: Path
    asks: bool
    secrets: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def source(self, projects: Sequence[str]) -> tuple[dict[str, str], Sequence[str]]:
        """The lines of the Source, and what is selected of it: on a terminal it is really asked what there is."""
        while True:
            self.secrets.clear()
            lines, values = self.edge("source")
            if not self.asks or projects:
                return lines, projects
            try:
                model = config_class("sources", str(values["type"])).model_validate(values)
                with closing(source_of(model, {}, SystemClock())) as source:
                    return lines, self.choice(source.collections())
            except SyncdError as error:
                log.error("%s", error)
            except ValidationError as error:
                for detail in error.errors(include_input=False):
                    log.error("%s: %s", ".".join(map(str, detail["loc"])), detail["msg"].removeprefix("Value error, "))

    def choice(self, found: Sequence[Collection]) -> list[str]:
        for collection in found[:_SHOWN]:
            say(f"  {clean(collection.id)}  {clean(collection.title)}", sys.stderr)
        if len(found) > _SHOWN:
            say(f"  ... and {len(found) - _SHOWN} more", sys.stderr)
        while True:
            answer = self.answer("", "Which: ids or title patterns, separated by commas", "all")
            chosen = [pattern.strip() for pattern in answer.split(",")] if answer != "all" else []
            unknown = [pattern for pattern in chosen if not any(selected([pattern], c.id, c.title) for c in found)]
            if not unknown:
                return chosen
            log.error("nothing is named %s", ", ".join(unknown))

    def edge(self, kind: str) -> tuple[dict[str, str], dict[str, object]]:
        """A Source or Target: its lines in the config, as YAML, and what they stand for."""
        chosen = self.answer(kind, f"{kind.capitalize()} type", known=NAMES[f"{kind}s"])
        lines, values = {"type": chosen}, dict[str, object](type=chosen)
        model = config_class(f"{kind}s", chosen) if chosen else None
        for name, part in model.model_fields.items() if model else ():
            question = f"{name} ({part.description.rstrip('.')})" if part.description else name
            if model and name in secret_fields(model) and part.is_required():
                written, values[name] = self.secret(chosen, name)
                lines |= written
            elif name == "path":
                path = self.answer(f"{kind}_path", question)
                lines[name], values[name] = self.path(path), Path(path).expanduser().absolute()
            elif name == "type" or not (part.is_required() or name in _OPTIONAL or name in self.given):
                continue
            elif answer := self.answer(name, question, None if part.is_required() else ""):
                lines[name], values[name] = _literal(answer), answer
        return lines, values

    def answer(self, option: str, question: str, default: str | None = None, known: Sequence[str] = ()) -> str:
        """What was given, else what a person says; empty when nobody can be asked for what has no default."""
        answer = self.given.pop(option, "")
        if answer and known and answer not in known:
            raise typer.BadParameter(f"--{option}: there is no {answer!r}; known: {', '.join(known)}")
        if not answer and not self.asks:
            if default is None:
                self.missing.append(_option(option))
            return default or ""
        if known:
            question, default = f"{question} ({', '.join(known)})", known[0]
        while not answer or (known and answer not in known):
            answer = typer.prompt(question if default != "" else f"{question} [none]", default=default, show_default=bool(default), err=True)
            if answer == default:
                break
        return answer

    def secret(self, chosen: str, name: str) -> tuple[dict[str, str], str]:
        """Its line, and the secret itself."""
        file, variable = self.given.pop("token_file", ""), self.given.pop("token_env", "")
        if not (file or variable or self.asks):
            self.missing.append("--token-file or --token-env")
        elif not (file or variable):
            question = f"{name} (paste it, and it is kept in a file beside the config; or say @FILE or $VARIABLE)"
            answer = typer.prompt(question, hide_input=True, err=True).strip()
            file = answer[1:] if answer.startswith("@") else ""
            variable = found[1] if (found := _VARIABLE.fullmatch(answer)) else ""
            if not file and not variable:
                file = f"{chosen}.{name}"
                self.secrets[file] = answer
                return {f"{name}_file": f"./{file}"}, answer
        if variable:
            return {name: f"${{{variable}}}"}, os.environ.get(variable, "")
        held = Path(file).expanduser()
        return {f"{name}_file": self.path(file)}, held.read_text(encoding="utf-8", errors="replace").rstrip("\r\n") if held.is_file() else ""

    def path(self, path: str) -> str:
        """As it stands in the config: relative paths start at its folder, those of a person where the person is."""
        return _literal(path if self.folder == Path.cwd() else str(Path(path).expanduser().absolute()))


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _lines(values: Mapping[str, str]) -> str:
    return "\n".join(f"    {name}: {value}" for name, value in values.items())


def _literal(text: str) -> str:
    return json.dumps(text.replace("$", "$$"), ensure_ascii=False)


def _write(config: Path, text: str, secrets: Mapping[Path, str], *, force: bool) -> None:
    """All files or none, the config last and only if it loads; none is replaced without `force`."""
    half = config.with_name(f".{config.name}.new")
    try:
        with ExitStack() as undo:
            for path, secret in secrets.items():
                if force:
                    path.unlink(missing_ok=True)
                with open(path, "x", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                    undo.callback(path.unlink)
                    file.write(secret + "\n")
            undo.callback(half.unlink, missing_ok=True)
            half.write_text(text, encoding="utf-8")
            load(half, os.environ)
            config.with_name(_SCHEMA).write_text(json.dumps(json_schema(), indent=2) + "\n", encoding="utf-8")
            (os.replace if force else os.link)(half, config)
            undo.pop_all()
        half.unlink(missing_ok=True)
    except OSError as error:
        raise SyncdError(f"{error.filename2 or error.filename}: can't be written: {error.strerror}") from error
    except ConfigError as error:
        raise ConfigError([replace(problem, file=str(config)) for problem in error.problems]) from error
