"""The test servers are believed only because the vendors' own clients work against them unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import obstore
import pytest
from google.api_core.exceptions import BadRequest, Conflict, NotFound, PreconditionFailed
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from obstore.exceptions import AlreadyExistsError
from obstore.store import GCSStore

if TYPE_CHECKING:  # obstore's types exist for checkers only
    from obstore.store import GCSCredential

from tests.fakes.gcs_server import GcsServer

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


def google(server: GcsServer) -> storage.Client:
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
