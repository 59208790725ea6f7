"""`syncd doctor` says of every Source, Target and Checkpoint what is wrong, and leaves nothing behind.

Real config files, the stand-in for Label Studio, moto, the stand-in for Google's storage and folders. Each kind of finding is produced here.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from syncd.cli.doctor import _show
from syncd.cli.main import Call
from syncd.clock import SECOND, SystemClock
from syncd.config import load, open_checkpoint
from syncd.run import run_sync
from syncd.run.opening import opened
from syncd.targets import local
from syncd.targets import s3 as s3_target
from syncd.targets.base import Finding, Sign
from syncd.targets.local import LocalTarget
from syncd.upkeep import doctor
from syncd.upkeep.doctor import examine
from tests.fakes.gcs_server import GcsServer
from tests.fakes.label_studio import StandIn
from tests.fakes.labelbox import Labelbox
from tests.fakes.places import BUCKET, S3Server
from tests.fakes.proxy import Fault, FaultProxy, answer

OK, ADVICE, WRONG = Sign.OK, Sign.ADVICE, Sign.WRONG


class Bucket(NamedTuple):
    client: Any
    name: str

    def put(self, what: str, **settings: Any) -> None:
        getattr(self.client, f"put_bucket_{what}")(Bucket=self.name, **settings)

    def keys(self) -> list[str]:
        return [item["Key"] for item in self.client.list_objects_v2(Bucket=self.name).get("Contents", ())]


class Desk:
    """A config file to be changed, and the doctor."""

    def __init__(self, folder: Path, studio: StandIn) -> None:
        self.folder = folder
        self.source = {"type": "label_studio", "url": studio.url, "token": studio.token}
        self.target: dict[str, Any] = {"type": "local", "path": "./backup"}
        self.sync: dict[str, Any] = {"source": "studio", "target": "place"}
        self.more: dict[str, Any] = {}

    def findings(self, part: str = "") -> list[Finding]:
        return [finding for of, finding in self.examine() if of.startswith(part)]

    def examine(self) -> list[tuple[str, Finding]]:
        config = self.config()
        return list(examine(config, list(config.syncs), SystemClock()))

    def config(self) -> Any:
        value = {"sources": {"studio": self.source}, "targets": {"place": self.target}, "syncs": {"cats": self.sync}}
        for section, parts in self.more.items():
            value[section] |= parts
        (self.folder / "syncd.yaml").write_text(json.dumps(value))
        return load(self.folder / "syncd.yaml", os.environ)

    def run(self) -> None:
        config = self.config()
        checkpoint = open_checkpoint(config)
        with opened(config, "cats", checkpoint, SystemClock()) as job:
            run_sync(job)
        checkpoint.close()


@pytest.fixture(scope="module")
def studio() -> Iterator[StandIn]:
    with StandIn() as studio:
        studio.project("Cats").add([{"data": {"text": "a"}}])
        studio.project("Cats at night")
        studio.project("Dogs")
        yield studio


@pytest.fixture
def desk(tmp_path: Path, studio: StandIn) -> Desk:
    return Desk(tmp_path, studio)


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture
def bucket(s3: S3Server, desk: Desk) -> Bucket:
    """boto3's view of a bucket that is the desk's target."""
    client, name = s3.client(), f"labels-{secrets.token_hex(4)}"
    client.create_bucket(Bucket=name)
    keys = {"access_key_id": "test", "secret_access_key": "do-not-show-this"}
    desk.target = {"type": "s3", "bucket": name, "prefix": "backups", "endpoint": s3.url, "region": "us-east-1", **keys}
    return Bucket(client, name)


@pytest.fixture
def google(desk: Desk) -> Iterator[GcsServer]:
    with GcsServer() as server:
        server.create_bucket(BUCKET)
        desk.target = {"type": "gcs", "bucket": BUCKET, "prefix": "backups", "endpoint": server.url}
        yield server


def signs(findings: list[Finding]) -> dict[str, Sign]:
    """By the first words of each."""
    return {" ".join(finding.message.split()[:3]): finding.sign for finding in findings}


def only(findings: list[Finding], words: str) -> Finding:
    (found,) = [finding for finding in findings if words in finding.message]
    assert found.sign is OK or found.hint or found.sign is WRONG
    return found


# Sources


def test_a_server_says_who_we_are_what_we_see_and_what_time_it_is(desk: Desk) -> None:
    desk.sync["projects"] = ["Cats*", 3]
    assert [(f.sign, f.message) for f in desk.findings("source")] == [
        (OK, "answers, and takes us for ann@example.com"),
        (OK, "its clock and ours agree"),
        (OK, "shows 3 Collections: Cats (1), Cats at night (2), Dogs (3)"),
        (OK, "sync cats selects 3 Collections: Cats (1), Cats at night (2), Dogs (3)"),
    ]


def test_a_refused_token_is_told_as_such(desk: Desk) -> None:
    desk.source["token"] = "0" * 40
    (found,) = desk.findings("source")
    assert (found.sign, found.refused) == (WRONG, True)
    assert "copy it again" in found.message


def test_a_server_that_is_not_there_is_given_up_in_seconds_and_the_rest_is_looked_at(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_PATIENCE", 0.3)
    desk.source |= {"url": "http://127.0.0.1:9", "retry_for": "10m"}
    (found,) = desk.findings("source")
    assert (found.sign, found.refused) == (WRONG, False)
    assert "Connection refused" in found.message
    assert only(desk.findings("target"), "writes").sign is OK


def test_a_clock_that_differs_is_worth_a_word(desk: Desk, studio: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studio, "clock", lambda: SystemClock().now() + 300 * SECOND)
    found = only(desk.findings("source"), "ahead of ours")
    assert found.sign is ADVICE
    assert doctor._clocks(0, -60 * SECOND).message == "its clock is 60 s behind ours"


def test_a_selection_that_names_nothing_is_wrong_and_a_part_of_one_is_doubtful(desk: Desk) -> None:
    desk.sync["projects"] = ["Cats*", "Mice"]
    assert only(desk.findings(), "nothing is named 'Mice'").sign is ADVICE
    desk.sync["projects"] = ["Mice"]
    assert only(desk.findings(), "nothing is named 'Mice'").sign is WRONG


def test_a_server_that_shows_nothing_is_doubtful(desk: Desk) -> None:
    with StandIn() as empty:
        desk.source["url"] = empty.url
        assert only(desk.findings(), "shows nothing yet").sign is ADVICE


def test_labelbox_is_looked_at_too(desk: Desk) -> None:
    with Labelbox() as box:
        box.project("Roads")
        roads = box.dataset("Road pictures")
        desk.source = {"type": "labelbox", "url": box.url, "api_key": box.key}
        desk.sync["datasets"] = ["Road*", "Rivers"]
        found = desk.findings("source")
        assert only(found, "takes us for ann@").sign is OK
        assert only(found, "its clock and ours agree").sign is OK
        assert only(found, "shows 1 Collection: Roads").sign is OK
        assert only(found, f"selects 1 Collection: Road pictures (datasets/{roads.id})").sign is OK
        assert only(found, "nothing is named 'Rivers' in `datasets`").sign is ADVICE
        desk.source["api_key"] = "not-the-key"
        (refused,) = desk.findings("source")
        assert (refused.sign, refused.refused) == (WRONG, True)


def test_a_folder_of_exports_is_looked_at_too(desk: Desk, tmp_path: Path) -> None:
    desk.source = {"type": "files", "path": "./exports"}
    assert "can't be listed" in only(desk.findings("source"), "exports").message
    (tmp_path / "exports" / "birds").mkdir(parents=True)
    assert [f.message for f in desk.findings("source")] == ["shows 1 Collection: birds"]


def test_what_no_sync_uses_is_looked_at_too(desk: Desk, tmp_path: Path) -> None:
    desk.more = {"sources": {"old": {"type": "files", "path": "./none"}}, "targets": {"spare": {"type": "local", "path": "./spare"}}}
    assert [f.sign for f in desk.findings("source old")] == [WRONG]
    assert only(desk.findings("target spare"), "no Sync uses it").sign is ADVICE
    assert only(desk.findings("target spare"), "answers").sign is OK
    assert not (tmp_path / "spare").exists()


def test_only_the_parts_of_the_syncs_named_are_looked_at(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "exports").mkdir()
    desk.more = {
        "sources": {"drop": {"type": "files", "path": "./exports"}},
        "targets": {"disk": {"type": "local", "path": "./disk"}},
        "syncs": {"birds": {"source": "drop", "target": "disk"}},
    }
    assert {part for part, _ in examine(desk.config(), ["birds"], SystemClock())} == {"source drop", "checkpoint", "target disk"}


# the Checkpoint


def test_the_checkpoint_is_opened_and_never_made(desk: Desk, tmp_path: Path) -> None:
    assert only(desk.findings("checkpoint"), "none yet").sign is OK
    assert not (tmp_path / ".syncd").exists()
    desk.run()
    assert only(desk.findings("checkpoint"), "opens").sign is OK
    (tmp_path / ".syncd" / "checkpoint.sqlite").write_bytes(b"no database, but long enough to be told from an empty file" * 10)
    (found,) = desk.findings("checkpoint")
    assert found.sign is WRONG
    assert "not a database" in found.message


def test_a_checkpoint_that_could_not_be_written_is_told(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert only(desk.findings("checkpoint"), f"{tmp_path}: this user may not write there").sign is WRONG


def test_a_disk_that_is_nearly_full_is_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    real = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real(path)._replace(free=10))
    assert [f.sign for f in desk.findings() if " free" in f.message] == [ADVICE, ADVICE]


# Targets


@pytest.mark.parametrize("kind", ["local", "s3", "gcs"])
def test_a_good_place_is_tried_for_real_and_left_as_it_was(desk: Desk, kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if kind != "local":
        request.getfixturevalue({"s3": "bucket", "gcs": "google"}[kind])
    found = desk.findings("target")
    assert [f.message for f in found if f.sign is WRONG] == []
    assert {"writes, reads back,", "creates a file"} <= signs(found).keys()
    desk.run()
    before = _everything(desk)
    assert only(desk.findings("target"), "no other syncd owns it").sign is OK
    assert _everything(desk) == before
    assert len(before) > 2


def _everything(desk: Desk) -> dict[str, bytes | None]:
    config = desk.config()
    with opened(config, "cats", open_checkpoint(config, read_only=True), SystemClock()) as job:
        return {stat.key: job.target.get(stat.key) for page in job.target.list("") for stat in page}


def test_the_place_of_another_checkpoint_is_told_and_not_touched(desk: Desk, tmp_path: Path) -> None:
    desk.run()
    (tmp_path / ".syncd").rename(tmp_path / "lost")
    before = sorted(tmp_path.rglob("*"))
    (found,) = desk.findings("target")
    assert (found.sign, "belongs to sync cats of another Checkpoint" in found.message) == (WRONG, True)
    assert "--take-over" in found.message
    assert sorted(path for path in tmp_path.rglob("*")) == before


class Broken(LocalTarget):
    """A folder that fails in one way."""

    how = ""

    def get(self, key: str) -> bytes | None:
        data = super().get(key)
        return data and data[:-1] if self.how == "get" and "probe" in key and "copy" not in key else data

    def list(self, prefix: str) -> Iterator[Any]:
        return iter(()) if self.how == "list" else super().list(prefix)

    def copy(self, source: str, destination: str) -> bool:
        return self.how != "copy" and super().copy(source, destination)

    def conditional(self) -> bool:
        return self.how != "conditional" and super().conditional()

    def delete(self, keys: Any) -> None:
        if self.how != "delete":
            super().delete(keys)


@pytest.mark.parametrize(
    ("how", "sign", "words"),
    [
        ("get", WRONG, "what was written is not read back"),
        ("list", WRONG, "what was written is not listed"),
        ("copy", WRONG, "a copy is not what was copied"),
        ("delete", WRONG, "what is deleted is still there"),
        ("conditional", ADVICE, "creates files over existing ones"),
    ],
)
def test_a_store_that_does_not_keep_its_promises_is_found_out(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, sign: Sign, words: str
) -> None:
    monkeypatch.setattr(Broken, "how", how)
    monkeypatch.setattr(local, "LocalTarget", Broken)
    assert only(desk.findings("target"), words).sign is sign
    if how != "delete":
        assert not list((tmp_path / "backup" / "_syncd").glob("probe*"))


def test_probes_of_a_doctor_that_was_killed_go_with_the_next_one(desk: Desk, tmp_path: Path) -> None:
    left = tmp_path / "backup/_syncd/probe.json"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"{}")
    assert {finding.sign for finding in desk.findings("target")} == {Sign.OK}
    assert not left.exists()


def test_a_bucket_that_is_not_there_is_told(desk: Desk, bucket: Bucket) -> None:
    desk.target["bucket"] = "nowhere"
    (found,) = desk.findings("target")
    assert (found.sign, found.refused, "the bucket does not exist" in found.message) == (WRONG, False, True)


def test_missing_credentials_are_told_in_words(desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    desk.target = {"type": "s3", "bucket": "b"}
    (found,) = desk.findings("target")
    assert found.refused
    assert found.message.startswith("s3://b: no credentials could be had: no AWS credentials found in the environment")
    assert ".." not in found.message


@pytest.mark.parametrize(("method", "left"), [("GET", 0), ("PUT", 0), ("POST", 3)])  # what may not be deleted (in bulk, by POST) stays
def test_a_permission_that_lacks_is_told(desk: Desk, bucket: Bucket, s3: S3Server, method: str, left: int) -> None:
    with FaultProxy(s3.url) as proxy:
        proxy.plan(Fault(answer(403), method=method, times=None))
        desk.target["endpoint"] = proxy.url
        (found,) = [f for f in desk.findings("target") if f.sign is WRONG]
        proxy.assert_all_fired()
    assert found.refused
    assert "PutObject, DeleteObject" in found.message
    assert len(bucket.keys()) == left


def rules(*more: dict[str, Any]) -> dict[str, Any]:
    return {"Rules": [{"Status": "Enabled", **rule} for rule in more]}


def test_a_bucket_that_is_well_set_up_gets_no_advice(desk: Desk, bucket: Bucket) -> None:
    bucket.put("versioning", VersioningConfiguration={"Status": "Enabled"})
    encrypted = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}
    bucket.put("encryption", ServerSideEncryptionConfiguration=encrypted)
    harmless: list[dict[str, Any]] = [
        {"ID": "abort", "Filter": {"Prefix": ""}, "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7}},
        {"ID": "old", "Filter": {"Prefix": ""}, "NoncurrentVersionExpiration": {"NoncurrentDays": 30}},
        {"ID": "logs", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 3}},
        {"ID": "tagged", "Filter": {"And": {"Prefix": "", "Tags": [{"Key": "a", "Value": "b"}]}}, "Expiration": {"Days": 3}},
        {"ID": "ready", "Filter": {"Prefix": ""}, "Transitions": [{"Days": 1, "StorageClass": "GLACIER_IR"}]},
        {"ID": "off", "Status": "Disabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 3}},
    ]
    bucket.put("lifecycle_configuration", LifecycleConfiguration=rules(*harmless))
    assert [f.message for f in desk.findings("target") if f.sign is not OK] == []


@pytest.mark.parametrize(
    "rule",
    [
        {"Filter": {"Prefix": ""}, "Expiration": {"Days": 30}},
        {"Filter": {"Prefix": "backups/"}, "Expiration": {"Date": "2027-01-31T00:00:00Z"}},
        {"Filter": {"Prefix": "back"}, "Transitions": [{"Days": 1, "StorageClass": "DEEP_ARCHIVE"}]},
        {"Prefix": "", "Transitions": [{"Days": 1, "StorageClass": "GLACIER"}]},
        {"Filter": {"Prefix": "backups/12/"}, "Expiration": {"Days": 30}},
    ],
)
def test_a_lifecycle_rule_that_would_eat_the_backup_is_found(desk: Desk, bucket: Bucket, rule: dict[str, Any]) -> None:
    bucket.put("lifecycle_configuration", LifecycleConfiguration=rules({"ID": "x", **rule}))
    assert only(desk.findings("target"), "lifecycle rule 'x' deletes or archives files").sign is WRONG
    assert bucket.keys() == []


def test_a_bucket_that_protects_nothing_gets_advice(desk: Desk, bucket: Bucket) -> None:
    found = desk.findings("target")
    assert {f.message.split(":")[0]: f.sign for f in found if f.sign is not OK} == {
        "versioning is off": ADVICE,
        "files are not encrypted by the store": ADVICE,
    }
    desk.target["sse"] = "AES256"
    assert only(desk.findings("target"), "files are encrypted (AES256)").sign is OK


def test_a_history_that_a_bucket_without_versioning_should_keep_is_wrong(desk: Desk, bucket: Bucket) -> None:
    desk.sync["history"] = "bucket"
    assert only(desk.findings("target"), "the bucket keeps no versions: what a put replaces is lost").sign is WRONG
    bucket.put("versioning", VersioningConfiguration={"Status": "Enabled"})
    assert WRONG not in {finding.sign for finding in desk.findings("target")}


def test_object_lock_is_told(desk: Desk, s3: S3Server) -> None:
    client = s3.client()
    client.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
    retention = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 7}}}
    client.put_object_lock_configuration(Bucket="locked", ObjectLockConfiguration=retention)
    desk.target = {"type": "s3", "bucket": "locked", "endpoint": s3.url, "access_key_id": "test", "secret_access_key": "test"}
    assert only(desk.findings("target"), "keeps each version of a file for 7 days (governance)").sign is OK


@pytest.mark.parametrize(
    ("endpoint", "checksum"),
    [
        (None, "SHA256"),
        ("https://s3-fips.us-east-1.amazonaws.com", "SHA256"),
        ("https://storage.example.com", None),
    ],
)
def test_amazon_gets_the_checksum_that_object_lock_wants(endpoint: str | None, checksum: str | None) -> None:
    """Seen at a server of our own: it goes with puts, creations and parts. Stores that only speak like S3 may refuse the header."""
    assert s3_target._settings(s3_target.Config(type="s3", bucket="b", endpoint=endpoint, region="us-east-1")).get("checksum_algorithm") == checksum


def test_what_may_not_be_asked_is_advice(desk: Desk, bucket: Bucket, s3: S3Server) -> None:
    with FaultProxy(s3.url) as proxy:
        proxy.plan(*(Fault(answer(403), path=rf"\?{name}", times=None) for name in ("versioning", "encryption", "object-lock", "lifecycle")))
        desk.target["endpoint"] = proxy.url
        found = desk.findings("target")
        proxy.assert_all_fired()
    assert [f.sign for f in found if "can't be asked" in f.message] == [ADVICE] * 4
    assert {f.hint for f in found if "can't be asked" in f.message} >= {"allow s3:GetBucketVersioning", "allow s3:GetLifecycleConfiguration"}
    assert only(found, "writes").sign is OK


def test_a_bucket_of_google_that_is_well_set_up_gets_no_advice(desk: Desk, google: GcsServer) -> None:
    harmless: list[dict[str, Any]] = [
        {"action": {"type": "AbortIncompleteMultipartUpload"}, "condition": {"age": 7}},
        {"action": {"type": "Delete"}, "condition": {"numNewerVersions": 3}},
        {"action": {"type": "Delete"}, "condition": {"age": 3, "isLive": False}},
        {"action": {"type": "Delete"}, "condition": {"age": 3, "matchesPrefix": ["logs/"]}},
        {"action": {"type": "SetStorageClass", "storageClass": "ARCHIVE"}, "condition": {"age": 3}},
    ]
    google.set_up(BUCKET, versioning={"enabled": True}, lifecycle={"rule": harmless}, encryption={"defaultKmsKeyName": "our-key"})
    found = desk.findings("target")
    assert [f.message for f in found if f.sign is not OK] == []
    assert only(found, "files are encrypted (our-key)").sign is OK
    google.set_up(BUCKET, softDeletePolicy={"retentionDurationSeconds": "604800"})
    assert only(desk.findings("target"), "soft delete keeps files for 7 days").sign is OK


@pytest.mark.parametrize(
    ("fields", "sign", "words"),
    [
        ({}, ADVICE, "versioning and soft delete are off"),
        ({"retentionPolicy": {"retentionPeriod": "60"}}, WRONG, "forbids to replace a file"),
        ({"defaultEventBasedHold": True}, WRONG, "forbids to replace a file"),
        ({"lifecycle": {"rule": [{"action": {"type": "Delete"}, "condition": {"age": 30}}]}}, WRONG, "would eat the backup"),
    ],
)
def test_a_bucket_of_google_that_would_harm_a_backup_is_found(desk: Desk, google: GcsServer, fields: dict[str, Any], sign: Sign, words: str) -> None:
    google.set_up(BUCKET, **fields)
    assert only(desk.findings("target"), words).sign is sign
    assert google.objects(BUCKET) == {}


def test_what_google_may_not_be_asked_is_advice(desk: Desk, google: GcsServer) -> None:
    with FaultProxy(google.url) as proxy:
        proxy.plan(Fault(answer(403), path="/storage/v1/b/", times=None))
        desk.target["endpoint"] = proxy.url
        found = desk.findings("target")
        proxy.assert_all_fired()
    assert only(found, "can't be asked for").hint.startswith("allow storage.buckets.get")
    assert only(found, "writes").sign is OK


# the command


@pytest.mark.parametrize(
    ("findings", "code"),
    [
        ([Finding(OK, "a"), Finding(ADVICE, "b", "do c")], 0),
        ([Finding(WRONG, "a"), Finding(OK, "b")], 1),
        ([Finding(WRONG, "a"), Finding(WRONG, "b", refused=True), Finding(WRONG, "c")], 12),
    ],
)
def test_the_exit_code_is_that_of_the_worst(findings: list[Finding], code: int) -> None:
    assert _show(Call(Path("x"), json=True), [("target t", finding) for finding in findings]) == code


def test_what_is_found_is_shown_under_the_name_of_its_part(capsys: pytest.CaptureFixture[str]) -> None:
    findings = [("source s", Finding(OK, "a")), ("source s", Finding(WRONG, "b\x1b[31m", "do c")), ("target t", Finding(ADVICE, "d"))]
    assert _show(Call(Path("x"), json=False), findings) == 1
    assert capsys.readouterr().out == "source s\n  ✓ a\n  ✗ b\\x1b[31m\n    → do c\ntarget t\n  ! d\n"
