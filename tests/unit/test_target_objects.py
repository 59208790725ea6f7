"""What can happen between syncd and an object store: faults on the wire, stores that break their word, credentials, encryption, certificates."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import obstore
import pytest

from syncd.errors import AccessError, SyncdError, TargetError, TaskError, TransientError
from syncd.targets import gcs, objects, s3
from syncd.targets.base import Target
from tests.fakes.gcs_server import GcsServer
from tests.fakes.places import BUCKET, PlaceToTest, QuickClock, S3Server, gcs_place, s3_place
from tests.fakes.proxy import Fault, FaultProxy, answer, lose_answer, reset_after, reset_before, truncate
from tests.fakes.web import Answer, Request, WebServer

SECRET = "do-not-show-this"
CALLS = ("put", "get", "list", "delete", "copy", "create", "put_stream")


@pytest.fixture(scope="module")
def s3_server() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture(scope="module")
def gcs_server() -> Iterator[GcsServer]:
    with GcsServer() as server:
        server.create_bucket(BUCKET)
        yield server


@pytest.fixture(params=["s3", "gcs"])
def world(request: pytest.FixtureRequest) -> Iterator[tuple[FaultProxy, PlaceToTest]]:
    """A store behind a proxy that misbehaves on command. Every planned fault must have fired."""
    server = request.getfixturevalue(f"{request.param}_server")
    with FaultProxy(server.url) as proxy:
        yield proxy, (s3_place if request.param == "s3" else gcs_place)(proxy.url)
        proxy.assert_all_fired()


@pytest.fixture(params=["s3", "gcs"])
def place(request: pytest.FixtureRequest) -> PlaceToTest:
    server = request.getfixturevalue(f"{request.param}_server")
    return (s3_place if request.param == "s3" else gcs_place)(server.url)


World = tuple[FaultProxy, PlaceToTest]


def error_xml(code: str, message: str = "said the store") -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()


def keys(target: Target) -> list[str]:
    return [stat.key for page in target.list("") for stat in page]


class TestRetry:
    @pytest.mark.parametrize(
        "act",
        [answer(503, error_xml("SlowDown")), answer(429), answer(500, error_xml("InternalError")), reset_before(), reset_after()],
        ids=["503", "429", "500", "reset", "reset after commit"],
    )
    def test_what_passes_is_tried_again_and_every_try_is_counted(self, world: World, act: Any) -> None:
        proxy, place = world
        target = place.open()
        proxy.plan(Fault(act, method="PUT", times=2))
        target.put("1/2.json", b"x")
        assert target.requests == 3 == proxy.count("PUT")
        assert target.failed.tries == 2
        assert target.get("1/2.json") == b"x"

    @pytest.mark.parametrize(
        ("act", "slower"),
        [
            (answer(503), True),
            (answer(429), True),
            (answer(400, error_xml("SlowDown")), True),
            (answer(400, error_xml("ThrottlingException")), True),
            (answer(500, error_xml("InternalError")), False),
            (reset_before(), False),
        ],
        ids=["503", "429", "SlowDown", "Throttling", "500", "reset"],
    )
    def test_only_what_asks_to_slow_down_is_obeyed_so(self, world: World, act: Any, slower: bool, caplog: pytest.LogCaptureFixture) -> None:
        proxy, place = world
        target = place.open()
        proxy.plan(Fault(act, method="PUT"))
        with caplog.at_level("DEBUG", "syncd.pace"):
            target.put("1/2.json", b"x")
        assert [message.rpartition("; ")[2] for message in caplog.messages] == ["from now on 16 requests at a time"] * slower

    def test_a_body_cut_short_is_read_again(self, world: World) -> None:
        proxy, place = world
        target = place.open()
        target.put("1/2.json", b"x" * 1000)
        proxy.plan(Fault(truncate(100), method="GET"))
        assert target.get("1/2.json") == b"x" * 1000

    def test_a_store_that_stays_ill_stops_the_run(self, world: World) -> None:
        proxy, place = world
        proxy.plan(Fault(answer(503, error_xml("SlowDown", "Please reduce your request rate")), times=None))
        target = place.open()
        for call in (lambda: target.put("1/2.json", b""), lambda: target.get("1/2.json"), lambda: keys(target), lambda: target.delete(["1/2.json"])):
            with pytest.raises(TargetError, match=r"busy or ill \(503 SlowDown Please reduce your request rate\).*gave up after"):
                call()

    def test_a_listing_goes_on_after_a_page_that_failed(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        proxy, place = world
        target = place.open()
        names = [f"1/{number:03}.json" for number in range(30)]
        for key in names:
            target.put(key, b"")
        monkeypatch.setattr("syncd.targets.objects._PAGE", 10)
        proxy.plan(Fault(answer(503), method="GET"))
        proxy.plan(Fault(answer(503), method="GET", nth=3))
        asked = target.requests
        assert keys(target) == names
        assert target.requests - asked <= 6

    def test_a_listing_in_no_order_is_refused(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        unordered = [{"path": "p/b", "size": 1, "e_tag": "x"}, {"path": "p/a", "size": 1, "e_tag": "x"}]
        monkeypatch.setattr("obstore.list", lambda *_, **__: [unordered])
        with pytest.raises(TargetError, match="lists in no order"):
            keys(world[1].open())


class TestCreate:
    @pytest.mark.parametrize("act", [reset_after(), lose_answer(0.1)], ids=["reset", "silence"])
    def test_after_a_lost_answer_the_file_tells_whose_it_is(self, world: World, act: Any) -> None:
        proxy, place = world
        target = place.open()
        assert target.conditional()
        proxy.plan(Fault(act, method="PUT", path="owner"))
        target.create("_syncd/owner.json", b"mine")
        assert target.get("_syncd/owner.json") == b"mine"
        assert target.create("_syncd/owner.json", b"other") is False
        assert target.get("_syncd/owner.json") == b"mine"

    @pytest.mark.parametrize("act", [reset_after(), answer(500)], ids=["reset", "500"])
    def test_an_answer_lost_while_probing_does_not_accuse_the_store(self, world: World, act: Any) -> None:
        proxy, place = world
        proxy.plan(Fault(act, method="PUT", path="_syncd/tmp"))
        assert place.open().conditional() is True

    def test_an_answer_lost_before_somebody_else_came_is_not(self, world: World) -> None:
        proxy, place = world
        target, other = place.open(), place.open()
        assert target.conditional()

        def somebody_else(_request: Request, _forward: Callable[[], Answer]) -> Answer:
            assert other.create("_syncd/owner.json", b"other")
            return answer(500)(_request, _forward)

        proxy.plan(Fault(somebody_else, method="PUT", path="owner"))
        assert target.create("_syncd/owner.json", b"mine") is False

    def test_a_store_that_ignores_conditions_is_found_out(self) -> None:
        with WebServer(Careless()) as server:
            target = s3_place(server.url).open()
            assert target.conditional() is False
            assert target.create("_syncd/owner.json", b"mine") is True
            assert target.create("_syncd/owner.json", b"other") is False
            assert target.get("_syncd/owner.json") == b"mine"

    def test_a_store_that_knows_no_conditions_is_found_out(self) -> None:
        with WebServer(Careless(refuse="If-None-Match")) as server:
            assert s3_place(server.url).open().conditional() is False


class TestSweep:
    def test_the_probe_of_a_killed_one_is_removed(self, place: PlaceToTest) -> None:
        target = place.open()
        target.put("_syncd/tmp/probe", b"_syncd/tmp/probe")
        target.sweep()
        assert keys(target) == []
        asked = target.requests
        target.sweep()
        assert target.requests - asked == 1


class TestErrors:
    """Each says what, where and what to do next, and shows no secret."""

    @pytest.mark.parametrize(
        ("status", "code", "kind", "text"),
        [
            (403, "InvalidAccessKeyId", AccessError, "refuses the credentials.*Check the"),
            (401, "", AccessError, "refuses the credentials.*Check the"),
            (403, "SignatureDoesNotMatch", AccessError, "SignatureDoesNotMatch"),
            (400, "ExpiredToken", AccessError, "ExpiredToken"),
            (404, "NoSuchBucket", TargetError, "bucket does not exist: check its name"),
            (403, "RequestTimeTooSkewed", TargetError, "set this machine's clock"),
            (400, "InvalidStorageClass", TargetError, "check `storage_class`"),
            (301, "PermanentRedirect", TargetError, "another region: set `region`"),
        ],
    )
    def test_of_the_whole_place(self, world: World, status: int, code: str, kind: type[SyncdError], text: str) -> None:
        proxy, place = world
        target = place.open()
        proxy.plan(Fault(answer(status, error_xml(code), content_type="application/xml"), times=None))
        for call in CALLS:
            with pytest.raises(kind, match=text) as told:
                use(target, call)
            assert SECRET not in str(told.value)
            assert "Debug" not in str(told.value)
            assert target.place in str(told.value)

    @pytest.mark.parametrize("code", ["KeyTooLongError", "EntityTooLarge", "InvalidArgument"])
    def test_of_one_key(self, world: World, code: str) -> None:
        proxy, place = world
        target = place.open()
        proxy.plan(Fault(answer(400, error_xml(code)), method="PUT", path="/9[.]json", times=None))
        with pytest.raises(TaskError, match=rf"1/9\.json.*{code}"):
            target.put("1/9.json", b"x")
        target.put("1/8.json", b"x")

    def test_a_key_that_no_store_can_hold(self, world: World) -> None:
        world[0].plan()
        with pytest.raises(TaskError, match="can't be the name of an object"):
            world[1].open().put("1/\x01.json", b"x")

    @pytest.mark.parametrize("kind", ["s3", "gcs"])
    def test_a_wrong_bucket(self, s3_server: S3Server, gcs_server: GcsServer, kind: str) -> None:
        place = s3_place(s3_server.url, "no-such-bucket") if kind == "s3" else gcs_place(gcs_server.url, "no-such-bucket")
        for call in CALLS:
            with pytest.raises(TargetError, match="the bucket does not exist: check its name"):
                use(place.open(), call)

    @pytest.mark.parametrize("make", [s3_place, gcs_place])
    def test_an_unreachable_store(self, make: Callable[[str], PlaceToTest]) -> None:
        for call in ("put", "get", "list", "delete"):
            with pytest.raises(TargetError, match=r"can't be reached: the connection was refused \(gave up after") as told:
                use(make("http://127.0.0.1:1").open(retry_for="1s"), call)
            assert SECRET not in str(told.value)

    @pytest.mark.parametrize(
        ("debug", "reason"),
        [
            ('ConnectError(\n "dns error",', "its name can't be resolved"),
            ("kind: Timeout,", "it did not answer in time"),
            ("kind: Request,", "HTTP error: error sending request"),
        ],
    )
    def test_why_it_is_unreachable(self, debug: str, reason: str) -> None:
        text = f"Generic S3 error: Error performing GET http://h/b/x in 1ms - HTTP error: error sending request\n\nDebug source:\n{debug}"
        told = objects._translate(obstore.exceptions.GenericError(text), "s3://b", "x", "")
        assert isinstance(told, TransientError)
        assert str(told) == f"s3://b: the store can't be reached: {reason}"

    def test_a_name_that_syncd_never_writes_is_named(self, s3_server: S3Server) -> None:
        place = s3_place(s3_server.url)
        odd = {"Bucket": BUCKET, "Key": f"{place.settings['prefix']}/1//x"}
        s3_server.client().put_object(**odd, Body=b"")
        with pytest.raises(TargetError, match=r"1//x.*remove that object"):
            keys(place.open())
        s3_server.client().delete_object(**odd)  # one bucket for all tests of a process, and some list all of it

    def test_a_folder_marker_of_a_console_does_no_harm(self, s3_server: S3Server) -> None:
        place = s3_place(s3_server.url)
        for key in ("", "1/"):
            s3_server.client().put_object(Bucket=BUCKET, Key=f"{place.settings['prefix']}/{key}", Body=b"")
        target = place.open()
        target.put("1/2.json", b"x")
        assert "1/2.json" in keys(target)
        assert [s.key for page in target.list("1/") for s in page] == ["1/2.json"]

    def test_a_bulk_deletion_that_fails_for_one_key_names_it(self) -> None:
        with WebServer(Careless(locked="1/1.json")) as server:
            target = s3_place(server.url).open()
            target.put("1/1.json", b"x")
            with pytest.raises(AccessError, match=r"1/1\.json: the store refuses .*AccessDenied locked"):
                target.delete(["1/0.json", "1/1.json", "1/2.json"])
            assert (target.requests, target.failed.tries) == (2, 1), "what will never pass is not tried again"


class TestS3:
    def test_encryption_and_storage_class_reach_the_object(self, s3_server: S3Server) -> None:
        place = s3_place(s3_server.url)
        target = place.open(kms_key_id="my-key", storage_class="STANDARD_IA")
        target.put("1/2.json", b"x")
        target.put_stream("1/big", lambda: [b"x" * (20 << 20)])
        assert target.create("1/owner.json", b"x")
        assert target.copy("1/2.json", "1/copy.json")
        head = {
            key: s3_server.client().head_object(Bucket=BUCKET, Key=f"{place.settings['prefix']}/1/{key}")
            for key in ("2.json", "big", "owner.json", "copy.json")
        }
        assert {answer["ServerSideEncryption"] for answer in head.values()} == {"aws:kms"}
        assert {answer["SSEKMSKeyId"] for answer in head.values()} == {"my-key"}
        assert [head[key]["StorageClass"] for key in ("2.json", "big", "owner.json")] == ["STANDARD_IA"] * 3
        assert head["2.json"]["ContentType"] == "application/json"
        etag = place.open(sse="AES256").put("1/3.json", b"x")
        assert s3_server.client().head_object(Bucket=BUCKET, Key=f"{place.settings['prefix']}/1/3.json")["ServerSideEncryption"] == "AES256"
        assert len(etag) == 16

    def test_a_failed_stream_leaves_no_unfinished_upload(self, s3_server: S3Server) -> None:
        def chunks() -> Iterator[bytes]:
            yield b"x" * (20 << 20)
            raise LookupError("half-way")

        place = s3_place(s3_server.url)
        with pytest.raises(LookupError):
            place.open().put_stream("1/big", chunks)
        assert "Uploads" not in s3_server.client().list_multipart_uploads(Bucket=BUCKET, Prefix=place.settings["prefix"])

    def test_static_keys_import_nothing_slow(self, s3_server: S3Server) -> None:
        script = "target.put('1/2.json', b'x')\nimport sys\nprint([name for name in ('boto3', 'botocore', 'google.auth') if name in sys.modules])"
        done = subprocess.run(s3_place(s3_server.url).command(script), capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
        assert done.stdout == "[]\n"

    def test_a_profile_and_a_role(self, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "credentials").write_text(f"[backup]\naws_access_key_id = AKIAPROFILE\naws_secret_access_key = {SECRET}\n")
        (tmp_path / "config").write_text("[profile backup]\nregion = eu-central-1\n")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", s3_server.url)
        seen: list[str] = []

        def look(request: Request, forward: Callable[[], Answer]) -> Answer:
            seen.append(str(request.headers["Authorization"]))
            return forward()

        with FaultProxy(s3_server.url) as proxy:
            proxy.plan(Fault(look, method="PUT", times=None))
            config = {"type": "s3", "bucket": BUCKET, "endpoint": proxy.url, "profile": "backup"}
            s3.open(s3.Config.model_validate(config), QuickClock()).put("profile", b"x")
            s3.open(s3.Config.model_validate({**config, "role_arn": "arn:aws:iam::123456789012:role/backup"}), QuickClock()).put("role", b"x")
        assert re.search("Credential=AKIAPROFILE/[0-9]+/eu-central-1/s3/", seen[0])
        assert re.search("Credential=ASIA[^/]+/[0-9]+/eu-central-1/s3/", seen[1])

    def test_static_keys_are_not_mixed_with_those_of_the_environment(self, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            monkeypatch.setenv(name, "of-the-environment")
        seen: list[str] = []

        def look(request: Request, forward: Callable[[], Answer]) -> Answer:
            seen.append(str(request.headers))
            return forward()

        with FaultProxy(s3_server.url) as proxy:
            proxy.plan(Fault(look, method="PUT", times=None))
            s3_place(proxy.url).open().put("1/2.json", b"x")
            s3_place(proxy.url).open(session_token="my-token").put("1/2.json", b"x")
        assert "Credential=test/" in seen[0]
        assert "of-the-environment" not in seen[0] + seen[1]
        assert "my-token" in seen[1]

    def test_an_endpoint_of_the_environment_is_part_of_the_place(self, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.url)
        target = s3_place("").open(endpoint=None)
        target.put("1/2.json", b"x")
        assert target.place.endswith(f"?endpoint={s3_server.url}")

    def test_no_credentials_at_all(self, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
        target = s3.open(s3.Config(type="s3", bucket=BUCKET, endpoint=s3_server.url), QuickClock())
        with pytest.raises(AccessError, match=r"no AWS credentials found.*Check the keys, profile or role"):
            target.put("1/2.json", b"x")

    @pytest.mark.parametrize(
        ("settings", "text"),
        [
            ({"access_key_id": "a"}, "come together"),
            ({"session_token": "a"}, "`session_token` needs"),
            ({"access_key_id": "a", "secret_access_key": "b", "profile": "c"}, "not both"),
            ({"kms_key_id": "a", "sse": "AES256"}, "needs `sse: aws:kms`"),
            ({"storage_class": "DEEP_ARCHIVE"}, "can't be read back"),
        ],
    )
    def test_what_does_not_go_together_is_refused(self, settings: dict[str, str], text: str) -> None:
        with pytest.raises(ValueError, match=text):
            s3.Config.model_validate({"type": "s3", "bucket": "b", **settings})

    def test_where_the_bucket_stands_in_the_address(self) -> None:
        def stands(**settings: object) -> tuple[object, object]:
            config = s3.Config.model_validate({"type": "s3", "access_key_id": "a", "secret_access_key": "b", **settings})
            made = s3._settings(config)
            return made.get("endpoint"), made.get("virtual_hosted_style_request")

        assert stands(bucket="b") == (None, True)
        assert stands(bucket="b.c") == (None, False)
        assert stands(bucket="b", endpoint="https://s.example.com/") == ("https://s.example.com", False)
        assert stands(bucket="b", endpoint="https://s.example.com", path_style=False) == ("https://b.s.example.com", True)

    @pytest.mark.parametrize("endpoint", ["nonsense", "https://", "https://a b", "https://h:99999", f"https://me:{SECRET}@s.example.com/", "ftp://h"])
    @pytest.mark.parametrize("edge", [s3, gcs])
    def test_an_endpoint_that_is_none_is_refused_before_anything_is_asked(self, edge: Any, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(ValueError, match=r"endpoint|Port") as told:
            edge.Config.model_validate({"type": edge.__name__.rpartition(".")[2], "bucket": "b", "endpoint": endpoint})
        assert SECRET not in str(told.value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        if edge is s3:
            with pytest.raises(TargetError, match="AWS_ENDPOINT_URL"):
                s3.open(s3.Config(type="s3", bucket="b", region="us-east-1"), QuickClock())

    @pytest.mark.parametrize("bucket", ["", "s3://b", "b/folder", "a b"])
    @pytest.mark.parametrize("edge", [s3, gcs])
    def test_a_bucket_is_a_name_alone(self, edge: Any, bucket: str) -> None:
        with pytest.raises(ValueError, match="name of the bucket alone"):
            edge.Config.model_validate({"type": edge.__name__.rpartition(".")[2], "bucket": bucket})

    @pytest.mark.parametrize("name", ["access_key_id", "secret_access_key", "session_token"])
    def test_a_key_with_a_line_break_is_refused_and_not_shown(self, s3_server: S3Server, name: str) -> None:
        with pytest.raises(AccessError, match="line break") as told:
            s3_place(s3_server.url).open(**{name: f"{SECRET}\n"}).get("1/2.json")
        assert SECRET not in str(told.value)

    def test_an_unknown_profile_and_a_file_that_is_no_certificate_are_told(self, tmp_path: Path) -> None:
        with pytest.raises(AccessError, match=r"profile .nope."):
            s3.open(s3.Config(type="s3", bucket="b", profile="nope"), QuickClock())
        (tmp_path / "ca.pem").write_text("no certificate")
        with pytest.raises(TargetError, match="No certificates found"):
            s3_place("http://127.0.0.1:1").open(ca_file=str(tmp_path / "ca.pem"))

    def test_a_role_is_assumed_in_the_region_of_the_target(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
            monkeypatch.delenv(name, raising=False)
        session = s3._session(s3.Config(type="s3", bucket="b", region="cn-north-1"))
        client = session.create_client("sts", aws_access_key_id="a", aws_secret_access_key="b")
        assert client.meta.endpoint_url == "https://sts.cn-north-1.amazonaws.com.cn"

    def test_a_private_authority_is_trusted_when_it_is_named(self, tmp_path: Path) -> None:
        ca = certificate(tmp_path)
        with secure_server(tmp_path) as url:
            place = s3_place(url)
            assert place.open(ca_file=str(ca)).get("1/2.json") is None
            with pytest.raises(TargetError, match=r"certificate is not trusted.*`ca_file`"):
                place.open().get("1/2.json")
            with pytest.raises(TargetError, match=r"No such file.*nowhere\.pem"):
                place.open(ca_file=str(tmp_path / "nowhere.pem"))


class TestGcs:
    def test_a_service_account_file(self, gcs_server: GcsServer, tmp_path: Path) -> None:
        subprocess.run(["openssl", "genrsa", "-out", str(tmp_path / "key.pem"), "2048"], check=True, capture_output=True)
        asked: list[str] = []

        def token(request: Request) -> Answer:
            asked.append(request.path)
            return Answer(200, json.dumps({"access_token": "the-token", "expires_in": 3600}).encode(), [("Content-Type", "application/json")])

        seen: list[str] = []

        def look(request: Request, forward: Callable[[], Answer]) -> Answer:
            seen.append(str(request.headers["Authorization"]))
            return forward()

        with WebServer(token) as tokens, FaultProxy(gcs_server.url) as proxy:
            account = {"type": "service_account", "client_email": "me@example.com", "token_uri": f"{tokens.url}/token"}
            (tmp_path / "account.json").write_text(json.dumps({**account, "private_key": (tmp_path / "key.pem").read_text()}))
            proxy.plan(Fault(look, times=None))
            target = gcs_place(proxy.url).open(service_account_file=str(tmp_path / "account.json"))
            target.put("1/2.json", b"x")
            assert target.get("1/2.json") == b"x"
        assert asked == ["/token"]
        assert set(seen) == {"Bearer the-token"}

    def test_an_account_that_can_not_be_read(self, gcs_server: GcsServer, tmp_path: Path) -> None:
        target = gcs_place(gcs_server.url).open(service_account_file=str(tmp_path / "nowhere.json"))
        with pytest.raises(AccessError, match=r"no credentials could be had: .*nowhere.json.*Check the account"):
            target.put("1/2.json", b"x")

    def test_the_place(self) -> None:
        assert gcs.open(gcs.Config(type="gcs", bucket="b", prefix="p/q/"), QuickClock()).place == "gs://b/p/q"


@pytest.mark.parametrize(
    ("text", "raw"),
    [
        ('"9dd4e461268c8034f5c8564e155c67a6"', bytes.fromhex("9dd4e461268c8034f5c8564e155c67a6")),
        ('W/"abc-2"', b"abc-2"),
        ("CKih16GjycICEAE=", b"CKih16GjycICEAE="),
        (None, b""),
    ],
)
def test_etags_are_short(text: str | None, raw: bytes) -> None:
    assert objects._etag(text) == raw
    assert len(objects._etag("x" * 1000)) == 32


def use(target: Target, call: str) -> object:
    calls: dict[str, Callable[[], object]] = {
        "put": lambda: target.put("1/2.json", b"x"),
        "get": lambda: target.get("1/2.json"),
        "list": lambda: keys(target),
        "delete": lambda: target.delete(["1/2.json", "1/3.json"]),
        "copy": lambda: target.copy("1/2.json", "1/3.json"),
        "create": lambda: target.create("1/2.json", b"x"),
        "put_stream": lambda: target.put_stream("1/2.json", lambda: [b"x"]),
    }
    return calls[call]()


class Careless:
    """An S3 that answers 200 to conditions without keeping them, and may refuse a header or to delete one key."""

    def __init__(self, *, refuse: str = "", locked: str = "") -> None:
        self.refuse = refuse
        self.locked = locked
        self.objects: dict[str, bytes] = {}

    def __call__(self, request: Request) -> Answer:
        if self.refuse and self.refuse in request.headers:
            return Answer(501, error_xml("NotImplemented"))
        path = unquote(request.path)
        if request.method == "PUT":
            self.objects[path] = request.body
            return Answer(200, headers=[("ETag", '"1"')])
        if request.method == "POST":
            return Answer(200, self._delete(request.body.decode()))
        if path not in self.objects:
            return Answer(404, error_xml("NoSuchKey"))
        return Answer(200, self.objects[path], [("ETag", '"1"'), ("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")])

    def _delete(self, body: str) -> bytes:
        told = "".join(
            f"<Error><Key>{key}</Key><Code>AccessDenied</Code><Message>locked</Message></Error>"
            if self.locked and key.endswith(self.locked)
            else f"<Deleted><Key>{key}</Key></Deleted>"
            for key in re.findall("<Key>(.*?)</Key>", body)
        )
        return f"<?xml version='1.0'?><DeleteResult>{told}</DeleteResult>".encode()


def certificate(folder: Path) -> Path:
    """A private authority and, signed by it, a certificate for the loopback address."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test authority")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=127.0.0.1")
    (folder / "ext").write_text("subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "server.pem", "-extfile", "ext")
    return folder / "ca.pem"


class secure_server:  # noqa: N801 - read as a function
    """HTTPS that knows no object."""

    def __init__(self, folder: Path) -> None:
        class Nothing(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Nothing)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.pem", folder / "server.key")
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that does not trust us hangs up

    def __enter__(self) -> str:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"https://127.0.0.1:{self.server.server_port}"

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
