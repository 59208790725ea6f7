"""The config loader: what it reads, what it refuses and how it says so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.config import Config, SyncConfig, load
from syncd.config.document import expand
from syncd.config.edges import config_class
from syncd.config.shape import Http
from syncd.errors import ConfigError, Problem
from syncd.fields import Fields, Secret, format_duration, parse_duration

BASE = """\
sources:
  drop: {type: files, path: ./exports}
  studio: {type: label_studio, url: "http://studio.test", token: "t0ken"}
targets:
  disk: {type: local, path: ./backup}
  bucket: {type: s3, bucket: labels, prefix: a}
  archive: {type: gcs, bucket: labels}
syncs:
  cats: {source: studio, target: disk}
"""


def read(folder: Path, text: str, env: Mapping[str, str] | None = None) -> Config:
    path = folder / "syncd.yaml"
    path.write_text(text, encoding="utf-8")
    return load(path, env or {})


def problems(folder: Path, text: str, env: Mapping[str, str] | None = None) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        read(folder, text, env)
    assert str(folder / "syncd.yaml") == caught.value.problems[0].file
    return list(caught.value.problems)


def messages(folder: Path, text: str, env: Mapping[str, str] | None = None) -> list[str]:
    return [problem.message for problem in problems(folder, text, env)]


def sync(rules: str) -> str:
    return BASE.replace("target: disk}", f"target: disk, {rules}}}")


def field(config: Config, section: str, name: str, key: str) -> Any:
    return getattr(getattr(config, section)[name], key)


def test_a_small_file_gets_every_default(tmp_path: Path) -> None:
    config = read(tmp_path, BASE)
    rules = config.syncs["cats"]
    assert (rules.every, rules.cron, rules.full_every, rules.overlap, rules.drafts_every) == (None, None, 86400, 600, 300)
    assert (rules.on_delete, rules.trash_retention, rules.max_delete.fraction, rules.max_delete.at_least) == ("trash", 30 * 86400, 0.05, 20)
    assert rules.key == "{project}/{task}.json"
    assert rules.selection() == {}
    assert config.state == tmp_path / ".syncd"
    assert config.http is None


def test_rules_of_a_sync_are_read(tmp_path: Path) -> None:
    config = read(
        tmp_path, sync("projects: [12, 'Cats *'], every: 1h30m, on_delete: keep, max_delete: {fraction: 0.5}, key: 'a/{project}/b/{task}.json'")
    )
    rules = config.syncs["cats"]
    assert rules.selection() == {"projects": ("12", "Cats *")}
    assert (rules.every, rules.on_delete, rules.max_delete.fraction, rules.max_delete.at_least) == (5400, "keep", 0.5, 20)
    assert rules.key == "a/{project}/b/{task}.json"


def test_relative_paths_start_at_the_folder_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    config = read(tmp_path, BASE.replace("./exports", "~/exports") + "state: st\n", {"HOME": "/home/ann"})
    assert field(config, "targets", "disk", "path") == tmp_path / "backup"
    assert field(config, "sources", "drop", "path") == Path("/home/ann/exports")
    assert config.state == tmp_path / "st"


def test_state_folder_comes_from_the_service_manager_when_the_file_names_none(tmp_path: Path) -> None:
    assert read(tmp_path, BASE, {"STATE_DIRECTORY": "/var/lib/syncd:/var/lib/b"}).state == Path("/var/lib/syncd")
    assert read(tmp_path, BASE + "state: ./s\n", {"STATE_DIRECTORY": "/var/lib/syncd"}).state == tmp_path / "s"


def test_every_problem_is_told_at_once_with_its_place_and_a_hint(tmp_path: Path) -> None:
    text = """\
sources:
  drop: {type: files, pth: ./exports}
  box: {type: label_studo}
targets:
  disk: {type: local}
syncs:
  cats:
    source: dropp
    target: disk
    intervall: 60s
    full_every: 5
    max_delete: {fraction: 2, at_lest: 1}
sttate: x
"""
    found = {(p.line, p.column): (p.message, p.hint) for p in problems(tmp_path, text)}
    assert list(found) == sorted(found)
    assert found[2, 3] == ("sources.drop.path: is missing", "add path")
    assert found[2, 23] == ("sources.drop.pth: unknown key", 'did you mean "path"? known: type, path')
    assert found[3, 9] == ("sources.box.type: there is no such type", 'did you mean "label_studio"? known: label_studio, labelbox, files')
    assert found[5, 3][0] == "targets.disk.path: is missing"
    assert found[8, 5] == ("syncs.cats.source: there is no source 'dropp'", 'did you mean "drop"? known: drop, box')
    assert found[10, 5][0] == "syncs.cats.intervall: unknown key"
    assert found[11, 5][0].startswith("syncs.cats.full_every: not a duration")
    assert found[12, 18][0] == "syncs.cats.max_delete.fraction: must be less than or equal to 1"
    assert found[12, 31] == ("syncs.cats.max_delete.at_lest: unknown key", 'did you mean "at_least"? known: fraction, at_least')
    assert found[13, 1][1].startswith('did you mean "state"?')
    assert len(found) == 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must hold sources, targets and syncs"),
        ("- a\n", "must hold sources, targets and syncs"),
        ("sources: {}\ntargets: {}\nsyncs: {}\n", "sources: names nothing"),
        ("sources: [a]\n", "sources: must be a mapping of keys and values"),
        ("a: {b\n", "did not find expected ',' or '}'"),
        ("a: *secret_alias\n", "found undefined alias"),
        ("a: 1\n---\nb: 2\n", "but found another document"),
        ("a: \x01\n", "holds a character that YAML does not allow"),
        ("a: &x [*x, *x]\n", "an anchor holds itself"),
        ("sources:\n\ta: 1\n", "found character that cannot start any token"),
    ],
)
def test_a_file_that_is_no_config_is_refused_in_words(tmp_path: Path, text: str, message: str) -> None:
    assert message in " / ".join(messages(tmp_path, text))


def test_a_missing_or_foreign_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "none.yaml", {})
    with pytest.raises(ConfigError, match="Is a directory"):
        load(tmp_path, {})
    (tmp_path / "syncd.yaml").write_bytes(b"a: \xff\n")
    with pytest.raises(ConfigError, match="UTF-8"):
        load(tmp_path / "syncd.yaml", {})


def test_a_key_may_stand_once(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, BASE + "  cats: {source: drop, target: disk}\n")
    assert (found.line, found.column, found.message) == (10, 3, "syncs.cats: stands twice")


def test_anchors_and_merge_keys_give_way_to_keys_beside_them(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        "x-rules: &rules {every: 60s, overlap: 1h}\nx-more: &more {overlap: 2h, drafts_every: 1m}\n"
        + BASE
        + "  dogs:\n    <<: [*rules, *more]\n    every: 5m\n    source: drop\n    target: bucket\n",
    )
    rules = config.syncs["dogs"]
    assert (rules.every, rules.overlap, rules.drafts_every) == (300, 3600, 60)


def test_a_problem_in_a_merged_value_is_shown_where_it_is_written(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, "x-rules: &rules\n  overlap: 5\n" + BASE + "  dogs: {<<: *rules, source: drop, target: bucket}\n")
    assert (found.line, found.column) == (2, 3)


@pytest.mark.parametrize(("name", "accepted"), [("é" * 100, True), ("a" * 101, False), ("a b", False), ('"a\\n"', False)])
def test_a_name_has_letters_digits_and_some_signs_and_at_most_100_of_them(tmp_path: Path, name: str, *, accepted: bool) -> None:
    text = BASE.replace("cats:", f"{name}:")
    if accepted:
        assert list(read(tmp_path, text).syncs) == [name]
    else:
        (found,) = problems(tmp_path, text)
        assert found.message.endswith("a name is made of letters, digits, . _ and -, at most 100 of them")


def test_names_that_yaml_takes_for_something_else_stay_text(tmp_path: Path) -> None:
    config = read(tmp_path, BASE.replace("cats:", "on:"))
    assert list(config.syncs) == ["on"]
    (found,) = problems(tmp_path, sync("projects: [on]"))
    assert (found.message, found.hint) == ("syncs.cats.projects[0]: must be text", "put it in quotes")
    assert read(tmp_path, sync("projects: [2026-11-20]")).syncs["cats"].projects == ("2026-11-20",)


# variables


def test_variables_are_expanded(tmp_path: Path) -> None:
    env = {"TOKEN": "s3cret", "EMPTY": "", "N": "7", "YES": "true"}
    text = BASE.replace("t0ken", "${TOKEN}").replace("prefix: a", "prefix: '${EMPTY:-x}-${NONE:-y z}-$${TOKEN}-$5', concurrency: '${N}'")
    config = read(tmp_path, text, env)
    assert field(config, "sources", "studio", "token").get_secret_value() == "s3cret"
    assert field(config, "targets", "bucket", "prefix") == "x-y z-${TOKEN}-$5/"
    assert field(config, "targets", "bucket", "concurrency") == 7


@pytest.mark.parametrize(
    ("value", "message", "hint"),
    [
        ("${NONE}", "variable NONE is not set", "set NONE, or write ${NONE:-default}"),
        ("${NONE:?ask the admin}", "variable NONE is not set: ask the admin", "set NONE, or write ${NONE:-default}"),
        ("${1}", "not a variable: write ${NAME}, ${NAME:-default} or ${NAME:?message}", "write $${ for the characters ${"),
        ("${A:-${B}}", "not a variable: write ${NAME}, ${NAME:-default} or ${NAME:?message}", "write $${ for the characters ${"),
        ("${A", "not a variable: write ${NAME}, ${NAME:-default} or ${NAME:?message}", "write $${ for the characters ${"),
    ],
)
def test_a_variable_that_cannot_be_expanded_is_an_error_at_its_value(tmp_path: Path, value: str, message: str, hint: str) -> None:
    (found,) = problems(tmp_path, BASE.replace("t0ken", value), {"B": "b"})
    assert (found.line, found.column, found.message, found.hint) == (3, 59, f"sources.studio.token: {message}", hint)


def test_a_variable_cannot_add_structure(tmp_path: Path) -> None:
    config = read(tmp_path, BASE.replace("t0ken", "${T}"), {"T": 'x", labeled_only: true, y: "'})
    assert field(config, "sources", "studio", "token").get_secret_value() == 'x", labeled_only: true, y: "'


@given(st.text())
def test_text_without_variables_is_not_changed_and_dollars_can_be_written(text: str) -> None:
    assert expand(text.replace("$", "$$"), {}) == (text, [])


@given(st.text(), st.text())
def test_what_a_variable_holds_is_never_expanded_again(value: str, other: str) -> None:
    assert expand("${A}", {"A": value, "B": other}) == (value, [])


# secrets


def test_a_secret_may_come_from_a_file_beside_the_config(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret \n")
    config = read(tmp_path, BASE.replace('token: "t0ken"', "token_file: ./token"))
    assert field(config, "sources", "studio", "token").get_secret_value() == "s3cret "


def test_an_optional_secret_may_be_left_empty_by_a_variable(tmp_path: Path) -> None:
    text = BASE.replace("prefix: a}", "prefix: a, access_key_id: k, secret_access_key: s, session_token: '${S3_SESSION:-}'}")
    assert field(read(tmp_path, text), "targets", "bucket", "session_token") is None


@pytest.mark.parametrize(
    ("said", "column", "message"),
    [
        ("token_file: nope", 59, "sources.studio.token_file: can't be read: No such file or directory"),
        ("token_file: empty", 59, "sources.studio.token_file: the file is empty"),
        ("token_file: binary", 59, "sources.studio.token_file: can't be read: it holds no text"),
        ("token_file: ''", 59, "sources.studio.token_file: can't be read: Is a directory"),
        ("token_file: 'http://t'", 59, "sources.studio.token_file: must be a path on this machine"),
        ("token_file: empty, token: t", 59, "sources.studio.token_file: the secret itself is given too"),
        ("token: ''", 59, "sources.studio.token: is empty"),
        ("concurrency: 1", 3, "sources.studio.token: is missing"),
    ],
)
def test_a_secret_that_cannot_be_used_is_one_problem(tmp_path: Path, said: str, column: int, message: str) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff")
    (found,) = problems(tmp_path, BASE.replace('token: "t0ken"', said))
    assert (found.line, found.column, found.message) == (3, column, message)
    assert found.hint or "empty" in message or "path" in message


@pytest.mark.parametrize(
    "secret",
    ["hunter2hunter2", "*hunter2hunter2", "&hunter2hunter2 x", "!hunter2hunter2 x", "%hunter2hunter2", "[hunter2hunter2]", "{hunter2hunter2: 1}"],
)
def test_no_message_shows_a_secret_however_it_is_written(tmp_path: Path, secret: str) -> None:
    text = BASE.replace('"t0ken"', secret) + "  bad: {}\n"
    for problem in problems(tmp_path, text):
        assert "hunter2" not in problem.message + problem.hint
    env = {"T": "hunter2"}
    assert "hunter2" not in repr(read(tmp_path, BASE.replace("t0ken", "${T}"), env))


# rules between the parts


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("every: 60s, cron: '* * * * *'", "syncs.cats.cron: every and cron are both given"),
        ("cron: '* * *'", "syncs.cats.cron: not a cron line"),
        ("cron: '*/5 * * * x!'", "syncs.cats.cron: not a cron line"),
        ("every: 0s", "syncs.cats.every: must be greater than 0"),
        ("every: 1.5", "syncs.cats.every: not a duration"),
        ("projects: []", "syncs.cats.projects: names nothing"),
        ("projects: null", "syncs.cats.projects: names nothing"),
        ("projects: ['']", "syncs.cats.projects: names nothing"),
        ("trash_retention: 9999999w", "syncs.cats.trash_retention: longer than 100 years"),
        ("key: '{task}.json'", "syncs.cats.key: the key must hold {project} and {task}"),
        ("key: '{project}/{task}/{x}.json'", "syncs.cats.key: the key must hold {project} and {task}"),
        ("key: '{project}-{task}.json'", "syncs.cats.key: the key must have {project} before {task} and a /"),
        ("key: '../{project}/{task}.json'", "syncs.cats.key: no part of the key may"),
        ("key: '_syncd/{project}/{task}.json'", "syncs.cats.key: no part of the key may"),
        ("on_delete: thrash", "syncs.cats.on_delete: must be 'trash', 'delete' or 'keep'"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused(tmp_path: Path, rules: str, message: str) -> None:
    (found,) = messages(tmp_path, sync(rules))
    assert found.startswith(message)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("type: local, path: ./b", "type: local, path: ./x/../b"),
        ("type: local, path: ./b", "type: local, path: ./b/c/d"),
        ("type: local, path: ./link", "type: local, path: ./real/c"),
        ("type: s3, bucket: b", "type: s3, bucket: b, prefix: a"),
        ("type: s3, bucket: b, prefix: /a/", "type: s3, bucket: b, prefix: a"),
        ("type: s3, bucket: b, endpoint: 'http://s3.test/'", "type: s3, bucket: b, endpoint: 'http://S3.test'"),
        ("type: gcs, bucket: b, prefix: a/b", "type: gcs, bucket: b, prefix: a"),
    ],
)
def test_two_syncs_never_share_a_place(tmp_path: Path, one: str, other: str) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for first, second in ((one, other), (other, one)):
        text = f"sources: {{d: {{type: files, path: ./e}}}}\ntargets:\n  a: {{{first}}}\n  b: {{{second}}}\n"
        (found,) = problems(tmp_path, text + "syncs:\n  x: {source: d, target: a}\n  y: {source: d, target: b}\n")
        assert (found.line, found.column) == (7, 18)
        assert "'x'" in found.message
        assert "prefix" in found.hint


def test_places_side_by_side_are_fine(tmp_path: Path) -> None:
    targets = [
        "type: s3, bucket: b, prefix: a",
        "type: s3, bucket: b, prefix: ab",
        "type: s3, bucket: c",
        "type: s3, bucket: b, endpoint: 'http://s3.test'",
        "type: gcs, bucket: b, prefix: a",
        "type: local, path: ./a",
        "type: local, path: ./ab",
    ]
    text = "sources: {d: {type: files, path: ./e}}\ntargets:\n" + "".join(f"  t{n}: {{{target}}}\n" for n, target in enumerate(targets))
    read(tmp_path, text + "syncs:\n" + "".join(f"  s{n}: {{source: d, target: t{n}}}\n" for n in range(len(targets))))


@pytest.mark.parametrize(("source", "target"), [("./e", "./e"), ("./e", "./e/backup"), ("./e/exports", "./e")])
def test_a_folder_is_not_backed_up_into_itself(tmp_path: Path, source: str, target: str) -> None:
    text = BASE.replace("./exports", source).replace("./backup", target).replace("source: studio", "source: drop")
    (found,) = messages(tmp_path, text)
    assert found == "syncs.cats.source: its folder and that of target 'disk' lie inside each other"


@pytest.mark.parametrize("path", ["s3://bucket/a", "file:///x", "postgresql://me:hunter2@db/syncd", "a\\0b"])
def test_a_path_that_is_none_is_refused_without_showing_it(tmp_path: Path, path: str) -> None:
    assert messages(tmp_path, BASE + f'state: "{path}"\n') == ["state: must be a path on this machine"]
    assert messages(tmp_path, BASE.replace("./backup", f'"{path}"')) == ["targets.disk.path: must be a path on this machine"]


@pytest.mark.parametrize("count", ["0", "-1", "1001", "lots", "1.5"])
def test_a_concurrency_that_nothing_could_work_with_is_refused(tmp_path: Path, count: str) -> None:
    found = messages(tmp_path, BASE.replace("./backup", f"./backup, concurrency: {count}").replace("prefix: a", f"concurrency: {count}"))
    assert [message.partition(": must be ")[0] for message in found] == ["targets.disk.concurrency", "targets.bucket.concurrency"]


def test_what_is_empty_is_left_out_or_missed(tmp_path: Path) -> None:
    config = read(tmp_path, BASE.replace("prefix: a", "region: '${REGION:-}', ca_file: '${CA:-}', prefix: ''"))
    assert (field(config, "targets", "bucket", "region"), field(config, "targets", "bucket", "ca_file")) == (None, None)
    assert messages(tmp_path, BASE.replace("./backup", "''")) == ["targets.disk.path: is empty"]
    assert messages(tmp_path, BASE.replace("bucket: labels,", "bucket: '${B:-}',")) == ["targets.bucket.bucket: is empty"]
    assert messages(tmp_path, BASE.replace("./backup", "null")) == ["targets.disk.path: must be a path"]


def test_rules_between_the_parts_are_checked_also_where_a_sync_has_other_problems(tmp_path: Path) -> None:
    found = messages(tmp_path, sync("every: 5, cron: '* * * * *'") + "  dogs: {source: drop, target: disk, colour: red}\n")
    assert [message.split(":")[0] for message in found] == ["syncs.cats.every", "syncs.cats.cron", "syncs.dogs.target", "syncs.dogs.colour"]


def test_a_token_given_as_its_file_by_mistake_is_not_shown(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, BASE.replace('token: "t0ken"', "token_file: hunter2"))
    assert "hunter2" not in found.message + found.hint


# the daemon's part, and what lies deeper


def test_where_the_daemon_answers_is_an_address_or_a_mapping(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cret\n")
    config = read(tmp_path, BASE + "http: '[::1]:8642'\nworkers: 2\n")
    assert config.http == Http(listen="[::1]:8642")
    assert config.workers == 2
    http = read(tmp_path, BASE + "http: {listen: 'localhost:0', username: ann, password_file: ./password}\n").http
    assert http
    assert (http.listen, http.username, http.password and http.password.get_secret_value()) == ("localhost:0", "ann", "s3cret")
    assert read(tmp_path, BASE + "http: '${HTTP:-}'\n").http is None


@pytest.mark.parametrize(
    "listen", ["8642", "':8642'", "localhost", "localhost:99999", "::1:8642", "'[::g]:1'", "http://localhost:8642", "'a b:1'", "a@b:1"]
)
def test_an_address_nobody_could_listen_at_is_refused(tmp_path: Path, listen: str) -> None:
    (found,) = messages(tmp_path, BASE + f"http: {listen}\n")
    assert found.startswith("http.listen: ")
    (found,) = messages(tmp_path, BASE + f"http:\n  listen: {listen}\n")
    assert found.startswith("http.listen: ")


@pytest.mark.parametrize(
    ("http", "message", "hint"),
    [
        ("username: ann", "http.listen: is missing", "add listen"),
        ("listen: 'a:1', username: ann", "http: `username` and `password` come together", ""),
        ("listen: 'a:1', passwort: x", "http.passwort: unknown key", 'did you mean "password"? known: listen, username, password, password_file'),
        ("listen: 'a:1', username: a, password_file: ./nope", "http.password_file: can't be read: No such file or directory", None),
    ],
)
def test_a_deeper_problem_is_shown_at_its_place(tmp_path: Path, http: str, message: str, hint: str | None) -> None:
    (found,) = problems(tmp_path, BASE + f"http: {{{http}}}\n")
    assert (found.line, found.message) == (10, message)
    assert hint is None or found.hint == hint


def test_a_sync_may_have_the_name_of_a_key(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, BASE.replace("cats:", "max_delete:").replace("target: disk", "target: disk, overlapp: 1h"))
    assert found.hint.startswith('did you mean "overlap"?')


def test_whom_to_tell_is_said_once_for_all_and_for_one_sync(tmp_path: Path) -> None:
    (tmp_path / "beat").write_text("https://hc.test/k3y/{sync}\n")
    text = sync("notify: {webhook: 'https://chat.test/cats'}") + "  dogs: {source: drop, target: bucket}\n"
    config = read(tmp_path, text + "notify: {heartbeat_file: ./beat, webhook: 'https://chat.test/all'}\n")
    told = {name: config.notify_for(name) for name in config.syncs}
    assert {name: notify.webhook and notify.webhook.get_secret_value() for name, notify in told.items()} == {
        "cats": "https://chat.test/cats", "dogs": "https://chat.test/all",
    }  # fmt: skip
    assert {notify.heartbeat and notify.heartbeat.get_secret_value() for notify in told.values()} == {"https://hc.test/k3y/{sync}"}
    assert "k3y" not in repr(config)


@pytest.mark.parametrize("url", ["hunter2", "ftp://hunter2", "https://[hunter2]/ x", "https:///hunter2"])
def test_a_url_that_is_none_is_refused_without_showing_it(tmp_path: Path, url: str) -> None:
    (found,) = problems(tmp_path, BASE + f"notify: {{webhook: '{url}'}}\n")
    assert found.message.startswith("notify.webhook: not a URL")
    assert "hunter2" not in found.message + found.hint


def test_a_url_whose_file_cannot_be_read_is_one_problem(tmp_path: Path) -> None:
    assert messages(tmp_path, BASE + "notify: {webhook_file: ./nope}\n") == ["notify.webhook_file: can't be read: No such file or directory"]


class Deeper(Fields):
    key: Secret
    folder: Path | None = None
    note: str | None = None


class Deep(Fields):
    inner: Deeper | None = None


class Edge(Fields):
    kinds: ClassVar = ("projects", "slices")
    type: str
    export: Deep = Deep()


def test_an_edge_is_filled_at_any_depth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("syncd.config.loader.config_class", lambda section, edge: Edge if section == "sources" else config_class(section, edge))
    (tmp_path / "key").write_text("s3cret\n")
    text = sync("slices: [a]").replace("path: ./exports", "export: {inner: {key_file: ./key, folder: ./f, note: ''}}")
    inner = field(read(tmp_path, text.replace('url: "http://studio.test", token: "t0ken"', "")), "sources", "drop", "export").inner
    assert (inner.key.get_secret_value(), inner.folder, inner.note) == ("s3cret", tmp_path / "f", None)


def test_a_hook_secret_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "hook").write_text("s3cret\n")
    secret = read(tmp_path, sync("hook_secret_file: ./hook")).syncs["cats"].hook_secret
    assert secret
    assert secret.get_secret_value() == "s3cret"


def test_a_hook_secret_that_no_header_could_carry_is_refused_without_showing_it(tmp_path: Path) -> None:
    (tmp_path / "hook").write_text("hunter2\nhunter2\n")
    (found,) = problems(tmp_path, sync("hook_secret_file: ./hook"))
    assert found.message.startswith("syncs.cats.hook_secret: must be one line")
    assert "hunter2" not in found.message + found.hint


@pytest.mark.parametrize("kind", ["datasets", "slices", "model_runs"])
def test_a_source_is_asked_only_for_kinds_it_has(tmp_path: Path, kind: str) -> None:
    (found,) = problems(tmp_path, sync(f"{kind}: [a]"))
    assert (found.message, found.hint) == (f"syncs.cats.{kind}: a label_studio Source has no {kind}", "remove it; it has: projects")
    assert found.line == 9


def test_only_the_kinds_given_are_selected() -> None:
    rules = SyncConfig(source="a", target="b", datasets=("d",), model_runs=("m*",))
    assert rules.selection() == {"datasets": ("d",), "model_runs": ("m*",)}


# durations


@pytest.mark.parametrize(
    ("text", "seconds"), [("60s", 60), ("1h30m", 5400), ("1.5h", 5400), ("30d", 2592000), ("250ms", 0.25), ("2w", 1209600), (0, 0)]
)
def test_durations_are_read(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", 5, 1.5, "s", "5 parsecs", "-5s", None, False, [], "5s5"])
def test_what_names_no_unit_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


@given(st.integers(min_value=0, max_value=10**12))
def test_a_written_duration_reads_back(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds / 1000)) == pytest.approx(milliseconds / 1000)
