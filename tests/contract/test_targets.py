"""Executes every sentence of syncd/targets/base.py against every Target. A new Target is enrolled by one line in `PLACES`.

Real buckets join when SYNCD_TEST_S3_URL / SYNCD_TEST_GCS_URL are set, under a random prefix that is emptied afterwards.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest

from syncd.errors import TargetError
from syncd.targets.base import Target
from syncd.targets.local import LocalTarget
from tests.fakes.gcs_server import GcsServer
from tests.fakes.places import BUCKET, PlaceToTest, S3Server, empty, gcs_place, local_place, real_place, s3_place

MB = 1 << 20
KEYS = [
    "1/2.json",
    "1/_project.json",
    "_syncd/owner.json",
    "_syncd/changes/2026-11-20/01J.ndjson",
    "12/_trash/2026-11-20/3.0123456789ab.json",
    "1/%2E%2E%2Fx.json",
    "1/%2e%2e.json",
    "1/%.json",
    "1/%25.json",
    "1/%252E.json",
    "1/%00.json",
    "1/ .json",
    "1/a b+c&d=e;f,g'h(i)!~@$.json",
    "1/A.json",
    "1/a.json",
    "1/e\u0301.json",
    "1/\u00e9.json",
    "1/日本 😀.json",
    "1/CON",
    "1/" + "x" * 250,
    "...",
    "1/..x/...y",
]


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[GcsServer]:
    with GcsServer() as server:
        server.create_bucket(BUCKET)
        yield server


@pytest.fixture
def without_syncfs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("syncd.targets.local.trusts_syncfs", lambda fd: False)


@pytest.fixture
def pages_of_twenty(monkeypatch: pytest.MonkeyPatch, gcs_server: GcsServer) -> None:
    """Pages of the Targets and of both stores."""
    monkeypatch.setattr("syncd.targets.local._PAGE", 20)
    monkeypatch.setattr("syncd.targets.objects._PAGE", 20)
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "20")
    monkeypatch.setattr(gcs_server._store, "page_size", 20)


PLACES: dict[str, Callable[[pytest.FixtureRequest], PlaceToTest]] = {
    "local": lambda request: local_place(request.getfixturevalue("tmp_path") / "to" / "backup"),
    "local-fsync": lambda request: request.getfixturevalue("without_syncfs") or local_place(request.getfixturevalue("tmp_path") / "backup"),
    "s3": lambda request: s3_place(request.getfixturevalue("s3_server").url),
    "gcs": lambda request: gcs_place(request.getfixturevalue("gcs_server").url),
}
for _name in ("SYNCD_TEST_S3_URL", "SYNCD_TEST_GCS_URL"):
    if _url := os.environ.get(_name):
        PLACES[f"real-{_name}"] = partial(lambda url, _request: real_place(url), _url)


@pytest.fixture(params=list(PLACES))
def place(request: pytest.FixtureRequest) -> Iterator[PlaceToTest]:
    found = PLACES[request.param](request)
    yield found
    if request.param.startswith("real-"):
        empty(found.open())


@pytest.fixture
def target(place: PlaceToTest) -> Iterator[Target]:
    opened = place.open()
    yield opened
    opened.close()


def keys_of(target: Target, prefix: str = "") -> list[str]:
    return sorted(stat.key for page in target.list(prefix) for stat in page)


class TestPut:
    def test_what_was_flushed_is_read_by_everybody(self, place: PlaceToTest, target: Target) -> None:
        etag = target.put("1/2.json", b'{"id": 2}\n')
        target.flush()
        other = place.open()
        assert other.get("1/2.json") == b'{"id": 2}\n'
        (page,) = other.list("1/")
        assert [(s.key, s.size, s.etag) for s in page] == [("1/2.json", 10, etag)]
        assert 0 < len(etag) <= 64

    def test_what_was_put_and_not_flushed_is_seen_by_the_same_target(self, target: Target) -> None:
        etag = target.put("1/2.json", b"one")
        assert target.get("1/2.json") == b"one"
        assert [(s.key, s.etag) for page in target.list("1/") for s in page] == [("1/2.json", etag)]
        target.put("1/3.json", b"three")
        assert target.copy("1/3.json", "1/4.json")
        target.put("1/5.json", b"five")
        target.delete(["1/5.json"])
        target.flush()
        assert keys_of(target) == ["1/2.json", "1/3.json", "1/4.json"]

    def test_it_replaces_and_the_last_one_stays(self, place: PlaceToTest, target: Target) -> None:
        first = target.put("1/2.json", b"one")
        target.flush()
        target.put("1/2.json", b"two, soon replaced")
        last = target.put("1/2.json", b"three")
        target.flush()
        assert place.open().get("1/2.json") == b"three"
        assert [s.etag for page in place.open().list("") for s in page] == [last]
        assert first != last

    def test_a_flush_of_nothing_asks_nothing(self, target: Target) -> None:
        target.flush()
        target.put("1/2.json", b"one")
        target.flush()
        asked = target.requests
        target.flush()
        assert target.requests == asked

    def test_it_may_be_repeated(self, target: Target) -> None:
        for _ in range(2):
            target.put("1/2.json", b"one")
            target.flush()
            target.flush()
        assert target.get("1/2.json") == b"one"

    @pytest.mark.parametrize("data", [b"", b"\0\xff\r\n", bytes(range(256)) * 4096], ids=["empty", "binary", "1 MB"])
    def test_bytes_come_back_as_they_were(self, target: Target, data: bytes) -> None:
        target.put("1/2.json", data)
        target.flush()
        assert target.get("1/2.json") == data
        assert [s.size for page in target.list("") for s in page] == [len(data)]

    def test_every_safe_and_encoded_key_stays_what_it_is(self, place: PlaceToTest, target: Target) -> None:
        for number, key in enumerate(KEYS):
            target.put(key, str(number).encode())
        target.flush()
        other = place.open()
        assert keys_of(other) == sorted(KEYS)
        assert {key: other.get(key) for key in KEYS} == {key: str(number).encode() for number, key in enumerate(KEYS)}
        assert all(other.copy(key, "copies/" + key) for key in KEYS)
        assert keys_of(other, "copies/") == sorted("copies/" + key for key in KEYS)
        other.delete(KEYS)
        other.delete(["copies/" + key for key in KEYS])
        assert keys_of(other) == []

    def test_many_threads_and_one_flush(self, place: PlaceToTest, target: Target) -> None:
        before = target.requests
        with ThreadPoolExecutor(32) as pool:
            etags = dict(pool.map(lambda n: (f"{n % 7}/{n}.json", target.put(f"{n % 7}/{n}.json", b"%d" % n)), range(100)))
        target.flush()
        assert {s.key: s.etag for page in place.open().list("") for s in page} == etags
        assert target.requests - before >= 100

    def test_a_reader_sees_the_whole_old_file_or_the_whole_new_one(self, place: PlaceToTest, target: Target) -> None:
        old, new = b"a" * (MB // 2), b"b" * MB
        target.put("1/2.json", old)
        target.flush()
        seen: list[bytes | None] = []
        done = threading.Event()

        def read() -> None:
            reader = place.open()
            while not done.is_set():
                seen.append(reader.get("1/2.json"))

        with ThreadPoolExecutor(2) as pool:
            readers = [pool.submit(read) for _ in range(2)]
            for turn in range(20):
                target.put("1/2.json", new if turn % 2 == 0 else old)
                target.flush()
            done.set()
        for reader in readers:
            reader.result()
        assert len(seen) > 2
        assert all(data in (old, new) for data in seen)

    def test_a_killed_writer_leaves_no_torn_file_and_its_litter_is_swept(self, place: PlaceToTest) -> None:
        # Each file holds its own digest, so that a torn one can be told.
        script = (
            "import hashlib, itertools\n"
            "from concurrent.futures import ThreadPoolExecutor\n"
            "def put(n):\n"
            "    body = str(n).encode() * 20_000\n"
            "    target.put(f'1/{n % 40}.json', hashlib.sha256(body).digest() + body)\n"
            "with ThreadPoolExecutor(8) as pool:\n"
            "    for turn in itertools.count():\n"
            "        list(pool.map(put, range(turn * 20, turn * 20 + 20)))\n"
            "        if turn % 2: target.flush()\n"
            "        print(turn, flush=True)\n"
        )
        with subprocess.Popen(place.command(script), stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as writer:
            assert writer.stdout is not None
            for _ in range(5):
                assert writer.stdout.readline()
            writer.kill()
        target = place.open()
        target.sweep()
        files = {key: target.get(key) or b"" for key in keys_of(target)}
        assert len(files) == 40
        assert all(sha256(data[32:]).digest() == data[:32] for data in files.values())
        if isinstance(target, LocalTarget):
            assert list(Path(target.place, "_syncd", "tmp").iterdir()) == []


class TestGetAndList:
    def test_a_place_that_does_not_exist_is_empty(self, target: Target) -> None:
        assert target.get("1/2.json") is None
        assert keys_of(target) == []
        assert keys_of(target, "1/") == []
        target.delete(["1/2.json"])
        target.sweep()
        target.flush()
        assert target.copy("1/2.json", "1/3.json") is False
        assert keys_of(target) == []

    def test_get_of_an_absent_key_is_none(self, target: Target) -> None:
        target.put("1/2.json", b"x")
        target.flush()
        assert target.get("1/3.json") is None
        assert target.get("1/2") is None
        assert target.get("2/2.json") is None

    def test_a_prefix_is_the_start_of_a_key_wherever_it_ends(self, target: Target) -> None:
        for key in ("1/2.json", "1/20.json", "1/3.json", "10/2.json", "1/2/mask.png", "x"):
            target.put(key, b"")
        target.flush()
        assert keys_of(target, "1/") == ["1/2.json", "1/2/mask.png", "1/20.json", "1/3.json"]
        assert keys_of(target, "1/2") == ["1/2.json", "1/2/mask.png", "1/20.json"]
        assert keys_of(target, "1") == ["1/2.json", "1/2/mask.png", "1/20.json", "1/3.json", "10/2.json"]
        assert keys_of(target, "1/2.json") == ["1/2.json"]
        assert keys_of(target, "1/9") == []
        assert keys_of(target, "9/") == []
        assert len(keys_of(target)) == 6

    @pytest.mark.usefixtures("pages_of_twenty")
    def test_what_fills_many_pages_is_listed_and_deleted_whole(self, place: PlaceToTest, target: Target) -> None:
        names = [f"1/{n}.json" for n in range(70)]
        for key in names:
            target.put(key, b"x")
        target.put("2/1.json", b"stays")
        target.flush()
        pages = [[stat.key for stat in page] for page in place.open().list("1/")]
        assert sorted(key for page in pages for key in page) == sorted(names)
        assert max(len(page) for page in pages) <= 20
        target.delete([f"1/{n}.json" for n in range(150)])
        target.flush()
        assert keys_of(place.open()) == ["2/1.json"]


class TestCreate:
    def test_only_a_free_key_is_taken(self, place: PlaceToTest, target: Target) -> None:
        assert target.create("_syncd/owner.json", b"mine") is True
        assert target.create("_syncd/owner.json", b"mine") is False
        assert place.open().create("_syncd/owner.json", b"other") is False
        assert place.open().get("_syncd/owner.json") == b"mine"
        assert keys_of(target) == ["_syncd/owner.json"]

    def test_what_was_put_before_is_taken(self, target: Target) -> None:
        target.put("1/2.json", b"put")
        assert target.create("1/2.json", b"created") is False
        assert target.get("1/2.json") == b"put"

    def test_of_two_at_once_one_gets_it(self, place: PlaceToTest) -> None:
        both = [place.open(), place.open()]
        assert [one.conditional() for one in both] == [True, True]
        start = threading.Barrier(2)

        def claim(who: int, number: int) -> bool:
            start.wait(timeout=30)
            return both[who].create(f"{number}/owner.json", b"%d" % who * 50_000)

        with ThreadPoolExecutor(2) as pool:
            for number in range(10):
                won = list(pool.map(claim, (0, 1), (number, number)))
                assert sorted(won) == [False, True]
                assert both[0].get(f"{number}/owner.json") == b"%d" % won.index(True) * 50_000

    def test_the_condition_is_probed_once_and_leaves_nothing(self, target: Target) -> None:
        assert target.conditional() is True
        asked = target.requests
        assert target.conditional() is True
        assert target.requests == asked
        assert keys_of(target) == []


class TestPutStream:
    def test_twenty_megabytes(self, place: PlaceToTest, target: Target) -> None:
        chunks = [bytes([n]) * MB for n in range(20)]
        target.put_stream("_syncd/changes/big.ndjson", lambda: iter(chunks))
        target.flush()
        assert place.open().get("_syncd/changes/big.ndjson") == b"".join(chunks)

    @pytest.mark.parametrize("chunks", [[], [b""], [b"a", b"", b"bc"]])
    def test_little(self, target: Target, chunks: list[bytes]) -> None:
        target.put_stream("1/feed", lambda: iter(chunks))
        assert target.get("1/feed") == b"".join(chunks)

    @pytest.mark.parametrize("megabytes", [1, 20])
    def test_a_source_that_fails_half_way_changes_nothing(self, place: PlaceToTest, target: Target, megabytes: int) -> None:
        target.put("1/old", b"old")
        target.flush()

        def chunks() -> Iterable[bytes]:
            for _ in range(megabytes):
                yield b"x" * MB
            raise LookupError("half-way")

        for key in ("1/old", "1/new"):
            with pytest.raises(LookupError, match="half-way"):
                target.put_stream(key, chunks)
        assert place.open().get("1/old") == b"old"
        assert keys_of(target, "1/") == ["1/old"]
        target.sweep()
        assert keys_of(place.open()) == ["1/old"]
        if isinstance(target, LocalTarget):
            assert list(Path(target.place, "_syncd", "tmp").iterdir()) == []


class TestCopyAndDelete:
    def test_a_copy_is_whole_and_leaves_its_source(self, place: PlaceToTest, target: Target) -> None:
        target.put("1/2.json", b"task")
        target.put("1/_trash/2.json", b"older")
        target.flush()
        assert target.copy("1/2.json", "1/_trash/2.json") is True
        target.delete(["1/2.json"])
        target.flush()
        assert place.open().get("1/_trash/2.json") == b"task"
        assert keys_of(place.open()) == ["1/_trash/2.json"]

    def test_without_a_source_nothing_is_copied(self, target: Target) -> None:
        target.put("1/3.json", b"stays")
        assert target.copy("1/2.json", "1/3.json") is False
        assert target.get("1/3.json") == b"stays"

    def test_deleting_may_be_repeated(self, target: Target) -> None:
        target.put("1/2.json", b"x")
        target.flush()
        for _ in range(2):
            target.delete(["1/2.json", "1/never.json", "never/1.json"])
            target.flush()
            assert target.get("1/2.json") is None
        target.delete([])


class TestKeys:
    @pytest.mark.parametrize("key", ["", "/etc/passwd", "../x", "1/../x", "1//2", "1/", ".", "1/.", "a\0b"])
    def test_a_key_that_syncd_never_makes_is_a_bug(self, place: PlaceToTest, target: Target, key: str) -> None:
        calls: list[Callable[[], object]] = [
            lambda: target.put(key, b""),
            lambda: target.create(key, b""),
            lambda: target.put_stream(key, lambda: [b""]),
            lambda: target.get(key),
            lambda: target.copy(key, "1/2"),
            lambda: target.copy("1/2", key),
            lambda: target.delete([key]),
        ]
        for call in calls:
            with pytest.raises(ValueError, match="is not a key"):
                call()

    def test_a_place_has_one_name_and_no_secret(self, place: PlaceToTest) -> None:
        assert place.open().place == place.open().place
        assert "do-not-show-this" not in place.open().place
        prefix = place.settings.get("prefix", "")
        assert place.open(prefix=f"/{prefix}/").place == place.open(prefix=prefix).place
        assert place.open(prefix="other").place != place.open().place

    @pytest.mark.parametrize("prefix", ["../x", "a//b", "a/./b"])
    def test_a_prefix_never_leads_outside(self, place: PlaceToTest, prefix: str) -> None:
        with pytest.raises(ValueError, match="is not a key"):
            place.open(prefix=prefix)

    def test_two_prefixes_do_not_see_each_other(self, place: PlaceToTest) -> None:
        prefix = place.settings.get("prefix", "")
        one, two = (place.open(prefix=f"{prefix}/{name}") for name in ("a", "ab"))
        one.put("1/2.json", b"one")
        one.flush()
        two.put("1/3.json", b"two")
        two.flush()
        assert (keys_of(one), keys_of(two)) == (["1/2.json"], ["1/3.json"])


def test_a_listing_that_breaks_is_an_error_and_never_an_end(place: PlaceToTest, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        target.put(f"{number}/1.json", b"x")
    target.flush()
    if isinstance(target, LocalTarget):
        monkeypatch.setattr("os.scandir", _broken)
    else:
        monkeypatch.setattr("obstore.list", _broken)
    with pytest.raises(TargetError):
        keys_of(target)


def _broken(*_: object, **__: object) -> object:
    from obstore.exceptions import GenericError

    class BrokenError(GenericError, OSError):
        """An error of both worlds."""

    raise BrokenError("the disk or the network is gone")
