"""The test servers are believed only because the vendors' own clients work against them unchanged."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import httpx
import obstore
import pytest
from botocore.config import Config as BotoConfig
from botocore.exceptions import ClientError
from google.api_core.exceptions import BadRequest, Conflict, NotFound, PreconditionFailed
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from obstore.exceptions import AlreadyExistsError, GenericError
from obstore.store import GCSStore, S3Store

if TYPE_CHECKING:  # these types exist for checkers only
    from obstore.store import GCSCredential

from tests.bench import peers
from tests.fakes.gcs_server import GcsServer
from tests.fakes.proxy import (
    LOGIN_PAGE,
    Act,
    Fault,
    FaultProxy,
    Seen,
    Stale,
    answer,
    delay,
    edit,
    lose_answer,
    reset_after,
    reset_before,
    slowly,
    truncate,
)
from tests.fakes.s3_sink import sink

HOSTILE = ["a b/%2e ü+?#&=", "A/../x", "%", "astral 😀/~'()*!", "e\u0301", '<xml> & "quotes"']


@pytest.fixture
def gcs() -> Iterator[GcsServer]:
    with GcsServer(page_size=3) as server:
        server.create_bucket("b")
        yield server


def any_token() -> GCSCredential:
    return {"token": "any", "expires_at": None}


def obstore_gcs(url: str) -> GCSStore:
    return GCSStore(
        "b",
        base_url=url,
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
        credential_provider=any_token,
    )


def obstore_s3(url: str, bucket: str) -> S3Store:
    return S3Store(bucket, endpoint=url, access_key_id="a", secret_access_key="s", client_options={"allow_http": True})


def boto_s3(url: str) -> Any:  # its types come with one package per service
    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="a",
        aws_secret_access_key="s",
        config=BotoConfig(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
    )


def google(server: GcsServer | FaultProxy) -> storage.Client:
    return storage.Client("p", credentials=AnonymousCredentials(), client_options={"api_endpoint": server.url})  # type: ignore[no-untyped-call]  # of google


class TestGcsWithObstore:
    def test_a_put_answers_the_etag_that_head_get_and_list_show(self, gcs: GcsServer) -> None:
        store = obstore_gcs(gcs.url)
        put = obstore.put(store, "k", b"one")
        assert put["e_tag"] == obstore.head(store, "k")["e_tag"] == next(iter(obstore.list(store)))[0]["e_tag"]
        again = obstore.put(store, "k", b"one")
        assert again["e_tag"] == put["e_tag"]
        assert int(again["version"] or 0) > int(put["version"] or 0)
        assert bytes(obstore.get(store, "k").bytes()) == b"one"
        assert bytes(obstore.get_range(store, "k", start=1, end=3)) == b"ne"

    def test_a_create_on_a_taken_key_is_refused_and_changes_nothing(self, gcs: GcsServer) -> None:
        store = obstore_gcs(gcs.url)
        obstore.put(store, "k", b"one", mode="create")
        with pytest.raises(AlreadyExistsError):
            obstore.put(store, "k", b"two", mode="create")
        assert gcs.objects("b") == {"k": b"one"}

    def test_hostile_keys_come_back_as_they_were_sent(self, gcs: GcsServer) -> None:
        store = obstore_gcs(gcs.url)
        keys = [key for key in HOSTILE if ".." not in key]
        for key in keys:
            obstore.put(store, key, key.encode())
        assert gcs.objects("b") == {key: key.encode() for key in keys}
        assert [stat["path"] for page in obstore.list(store) for stat in page] == sorted(keys, key=str.encode)
        assert all(bytes(obstore.get(store, key).bytes()) == key.encode() for key in keys)

    def test_listings_are_paged_and_respect_prefix_offset_and_delimiter(self, gcs: GcsServer) -> None:
        store = obstore_gcs(gcs.url)
        for n in range(10):
            obstore.put(store, f"p/{n}/x", b"")
        assert [s["path"] for page in obstore.list(store, "p", offset="p/6/x") for s in page] == [f"p/{n}/x" for n in (7, 8, 9)]
        assert sum(len(page) for page in obstore.list(store, "p")) == 10
        assert len(obstore.list_with_delimiter(store, "p")["common_prefixes"]) == 10

    def test_copy_and_delete(self, gcs: GcsServer) -> None:
        store = obstore_gcs(gcs.url)
        obstore.put(store, "a %/1", b"x")
        obstore.copy(store, "a %/1", "t/1")
        with pytest.raises(AlreadyExistsError):
            obstore.copy(store, "a %/1", "t/1", overwrite=False)
        with pytest.raises(FileNotFoundError):
            obstore.copy(store, "none", "t/2")
        obstore.delete(store, ["a %/1"])
        assert gcs.objects("b") == {"t/1": b"x"}
        with pytest.raises(FileNotFoundError):
            obstore.delete(store, "none")

    def test_a_multipart_upload_is_seen_only_when_complete(self, gcs: GcsServer) -> None:
        store = obstore_gcs(gcs.url)
        data = bytes(range(256)) * 40_000
        put = obstore.put(store, "big", data, chunk_size=5 << 20)
        assert gcs.objects("b") == {"big": data}
        assert gcs.unfinished_uploads("b") == 0
        assert obstore.head(store, "big")["e_tag"] == put["e_tag"]


class TestGcsWithGoogle:
    def test_objects_written_through_one_api_are_read_through_the_other(self, gcs: GcsServer) -> None:
        bucket = google(gcs).bucket("b")
        for key in HOSTILE:
            bucket.blob(key).upload_from_string(key, content_type="text/plain")
            assert bucket.blob(key).download_as_bytes() == key.encode()
        assert gcs.objects("b") == {key: key.encode() for key in HOSTILE}
        assert [blob.name for blob in bucket.list_blobs()] == sorted(HOSTILE, key=str.encode)
        assert bytes(obstore.get(obstore_gcs(gcs.url), "%").bytes()) == b"%"

    def test_conditions(self, gcs: GcsServer) -> None:
        bucket = google(gcs).bucket("b")
        blob = bucket.blob("k")
        blob.upload_from_string("1", if_generation_match=0)
        with pytest.raises(PreconditionFailed):
            bucket.blob("k").upload_from_string("2", if_generation_match=0)
        first = blob.generation
        blob.upload_from_string("2", if_generation_match=first)
        assert blob.generation > first
        with pytest.raises(PreconditionFailed):
            blob.delete(if_generation_match=first)
        blob.metadata = {"a": "1"}
        blob.patch()
        assert (blob.metageneration, bucket.get_blob("k").metadata) == (2, {"a": "1"})

    def test_errors_have_the_shapes_the_client_knows(self, gcs: GcsServer) -> None:
        client = google(gcs)
        with pytest.raises(NotFound):
            client.bucket("b").blob("none").download_as_bytes()
        with pytest.raises(NotFound):
            client.get_bucket("none")
        with pytest.raises(Conflict):
            client.create_bucket("b")
        blob = client.bucket("b").blob("k")
        blob.md5_hash = "AAAAAAAAAAAAAAAAAAAAAA=="
        with pytest.raises(BadRequest):
            blob.upload_from_string("x", checksum=None)
        assert gcs.objects("b") == {}

    def test_paging_rewrite_compose_and_large_uploads(self, gcs: GcsServer) -> None:
        client = google(gcs)
        bucket = client.bucket("b")
        data = bytes(range(256)) * 40_000
        with bucket.blob("big").open("wb", chunk_size=256 << 10) as file:
            file.write(data)
        assert bucket.blob("big").download_as_bytes(start=5, end=9) == data[5:10]
        bucket.copy_blob(bucket.blob("big"), bucket, "p/copy")
        bucket.blob("p/rewritten").rewrite(bucket.blob("big"))
        bucket.blob("p/twice").compose([bucket.blob("big"), bucket.blob("big")])
        assert {key: len(value) for key, value in gcs.objects("b").items() if key != "big"} == {
            "p/copy": len(data),
            "p/rewritten": len(data),
            "p/twice": 2 * len(data),
        }
        assert [page.num_items for page in bucket.list_blobs(prefix="").pages] == [3, 1]
        assert bucket.get_blob("big").md5_hash is not None
        assert bucket.test_iam_permissions(["storage.objects.get"]) == ["storage.objects.get"]


@pytest.fixture
def proxy(gcs: GcsServer) -> Iterator[FaultProxy]:
    with FaultProxy(gcs.url) as proxy:
        yield proxy


class TestFaultProxy:
    def test_what_no_fault_touches_passes_unchanged_and_is_recorded(self, gcs: GcsServer, proxy: FaultProxy) -> None:
        store = obstore_gcs(proxy.url)
        obstore.put(store, "a %/ü", b"x")
        assert obstore.head(store, "a %/ü")["size"] == 1
        assert gcs.objects("b") == {"a %/ü": b"x"}
        assert list(proxy.requests) == [Seen("PUT", "/b/a %/ü", "", 200), Seen("HEAD", "/b/a %/ü", "", 200)]
        with google(proxy).bucket("b").blob("big").open("wb", chunk_size=256 << 10) as file:
            file.write(bytes(300 << 10))
        assert proxy.count("PUT", "^/upload/.*uploadType=resumable") == 2

    def test_a_status_without_forwarding(self, gcs: GcsServer, proxy: FaultProxy) -> None:
        proxy.plan(Fault(answer(503, b"later", retry_after=2), method="PUT", path="/k$", nth=2, times=2))
        answers = [httpx.put(f"{proxy.url}/b/k", content=b"%d" % n) for n in range(4)]
        assert [(a.status_code, a.headers.get("Retry-After")) for a in answers] == [(200, None), (503, "2"), (503, "2"), (200, None)]
        proxy.assert_all_fired()
        assert gcs.objects("b") == {"k": b"3"}

    @pytest.mark.parametrize(("act", "done"), [(reset_before(), False), (reset_after(), True), (lose_answer(), True)])
    def test_a_lost_answer_tells_nothing_of_what_was_done(self, gcs: GcsServer, proxy: FaultProxy, act: Act, done: bool) -> None:
        proxy.plan(Fault(act))
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError, httpx.ReadTimeout)):
            httpx.put(f"{proxy.url}/b/k", content=b"x", timeout=0.2)
        assert ("k" in gcs.objects("b")) is done

    def test_a_body_cut_short_is_seen_by_the_client(self, proxy: FaultProxy) -> None:
        store = obstore_gcs(proxy.url)
        obstore.put(store, "k", b"0123456789")
        proxy.plan(Fault(truncate(4), method="GET"))
        with pytest.raises(GenericError):
            obstore.get(store, "k").bytes()
        proxy.assert_all_fired()

    def test_another_body_and_a_pause(self, proxy: FaultProxy) -> None:
        httpx.put(f"{proxy.url}/b/k", content=b"x")
        proxy.plan(Fault(edit(lambda body: body + b"[]")), Fault(answer(200, LOGIN_PAGE, content_type="text/html"), times=None))
        assert [httpx.get(f"{proxy.url}/b/k").content for _ in range(2)] == [b"x[]", LOGIN_PAGE]
        proxy.clear()
        proxy.plan(Fault(delay(0.1)))
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(f"{proxy.url}/b/k", timeout=0.05)

    def test_a_slow_body_arrives_whole_and_a_stale_one_is_what_was_before(self, proxy: FaultProxy) -> None:
        httpx.put(f"{proxy.url}/b/k", content=b"old" * 100)
        proxy.plan(Fault(slowly(0.1)))
        assert httpx.get(f"{proxy.url}/b/k").content == b"old" * 100
        proxy.clear()
        proxy.plan(Fault(Stale(), times=3))
        seen = [httpx.get(f"{proxy.url}/b/k").content]
        httpx.put(f"{proxy.url}/b/k", content=b"new")
        seen += [httpx.get(f"{proxy.url}/b/k").content for _ in range(2)]
        assert seen == [b"old" * 100, b"old" * 100, b"new"]
        assert proxy.fired == 3

    def test_probability_is_seeded(self, gcs: GcsServer) -> None:
        def statuses() -> list[int]:
            with FaultProxy(gcs.url, seed=7) as proxy, httpx.Client() as client:
                proxy.plan(Fault(answer(429), probability=0.3, times=None))
                return [client.head(f"{proxy.url}/b").status_code for _ in range(40)]

        first = statuses()
        assert first == statuses()
        assert 4 <= first.count(429) <= 20

    def test_a_fault_that_never_fired_fails_the_test(self, proxy: FaultProxy) -> None:
        proxy.plan(Fault(answer(500), method="DELETE"))
        httpx.head(f"{proxy.url}/b")
        with pytest.raises(AssertionError, match="did not fire"):
            proxy.assert_all_fired()

    def test_it_stands_before_the_s3_server_of_moto(self) -> None:
        from moto.server import ThreadedMotoServer

        moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        moto.start()
        try:
            host, port = moto.get_host_and_port()
            with FaultProxy(f"http://{host}:{port}") as proxy:
                boto_s3(proxy.url).create_bucket(Bucket="bucket")
                proxy.plan(Fault(reset_after(), method="PUT"))
                store = obstore_s3(proxy.url, "bucket")
                obstore.put(store, "k%", b"x")  # obstore tries again by itself
                assert proxy.count("PUT", "^/bucket/k%") == 2
                assert boto_s3(proxy.url).get_object(Bucket="bucket", Key="k%")["Body"].read() == b"x"
        finally:
            moto.stop()


@pytest.fixture(scope="class")
def s3_url() -> Iterator[str]:
    with sink() as url:
        yield url


class TestS3Sink:
    def test_obstore(self, s3_url: str) -> None:
        store = obstore_s3(s3_url, "ob")
        put = obstore.put(store, "a %/ü", b"hello")
        assert put["e_tag"] == f'"{hashlib.md5(b"hello").hexdigest()}"' == obstore.head(store, "a %/ü")["e_tag"]
        obstore.put(store, "_syncd/owner.json", b"{}", mode="create")
        with pytest.raises(AlreadyExistsError):
            obstore.put(store, "_syncd/owner.json", b"[]", mode="create")
        assert bytes(obstore.get(store, "_syncd/owner.json").bytes()) == b"{}"
        obstore.copy(store, "a %/ü", "t/1")
        obstore.put(store, "_syncd/big", bytes(11 << 20), chunk_size=5 << 20)
        assert len(obstore.get(store, "_syncd/big").bytes()) == 11 << 20
        with pytest.raises(FileNotFoundError):
            obstore.head(store, "none")
        assert [stat["path"] for page in obstore.list(store) for stat in page] == ["_syncd/big", "_syncd/owner.json", "a %/ü", "t/1"]
        obstore.delete(store, ["a %/ü", "t/1", "none"])
        assert [stat["path"] for page in obstore.list(store, "a %") for stat in page] == []

    def test_boto3(self, s3_url: str) -> None:
        client = boto_s3(s3_url)
        client.head_bucket(Bucket="bo")
        for n in range(7):
            client.put_object(Bucket="bo", Key=f"p/{n} %/x", Body=b"x" * n)
        client.put_object(Bucket="bo", Key="_syncd/stream", Body=io.BytesIO(b"streamed"))
        assert client.get_object(Bucket="bo", Key="_syncd/stream")["Body"].read() == b"streamed"
        pages = list(client.get_paginator("list_objects_v2").paginate(Bucket="bo", Prefix="p/", PaginationConfig={"PageSize": 3}))
        assert [(page["KeyCount"], page["IsTruncated"]) for page in pages] == [(3, True), (3, True), (1, False)]
        assert [(item["Key"], item["Size"]) for page in pages for item in page["Contents"]] == [(f"p/{n} %/x", n) for n in range(7)]
        grouped = list(client.get_paginator("list_objects_v2").paginate(Bucket="bo", Delimiter="/", PaginationConfig={"PageSize": 1}))
        assert [item["Prefix"] for page in grouped for item in page["CommonPrefixes"]] == ["_syncd/", "p/"]
        with pytest.raises(ClientError, match="PreconditionFailed"):
            client.put_object(Bucket="bo", Key="p/0 %/x", Body=b"", IfNoneMatch="*")
        client.delete_objects(Bucket="bo", Delete={"Objects": [{"Key": f"p/{n} %/x"} for n in range(7)]})
        client.upload_fileobj(io.BytesIO(bytes(9 << 20)), "bo", "big")
        assert client.head_object(Bucket="bo", Key="big")["ContentLength"] == 9 << 20
        assert client.list_objects_v2(Bucket="bo")["KeyCount"] == 2

    @pytest.mark.parametrize("tool", ["rclone", "s5cmd"])
    def test_what_it_is_compared_with(self, s3_url: str, tmp_path: Path, tool: str) -> None:
        copy = peers.copier(tool, s3_url)
        if copy is None:
            pytest.skip("make bench installs it")
        for n in range(40):
            (tmp_path / f"{n % 3}").mkdir(exist_ok=True)
            (tmp_path / f"{n % 3}" / f"{n} ü.json").write_bytes(b"x" * n)
        copy(tmp_path, tool, 8)
        listed = boto_s3(s3_url).list_objects_v2(Bucket="b", Prefix=f"{tool}/")
        assert {item["Key"]: item["Size"] for item in listed["Contents"]} == {f"{tool}/{n % 3}/{n} ü.json": n for n in range(40)}

    def test_it_counts_requests(self, s3_url: str) -> None:
        before = httpx.get(f"{s3_url}/-/stats").json()
        httpx.put(f"{s3_url}/b/k", content=b"x")
        assert {**before, "PUT": before.get("PUT", 0) + 1} == httpx.get(f"{s3_url}/-/stats").json()
