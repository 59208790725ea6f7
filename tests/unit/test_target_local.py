"""What can happen to a folder: symlinks, full and read-only disks, failing flushes, moved folders, missing hard links."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from syncd.errors import AccessError, TargetError, TaskError
from syncd.targets import folders, local
from syncd.targets.local import LocalTarget
from tests.fakes.places import QuickClock


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "backup"


@pytest.fixture
def target(root: Path) -> LocalTarget:
    return opened(root)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "1.json").write_bytes(b"outside")
    return folder


def opened(root: Path) -> LocalTarget:
    return local.open(local.Config(type="local", path=root), QuickClock())


def put(target: LocalTarget, key: str, data: bytes) -> None:
    target.put(key, data)
    target.flush()


def keys(target: LocalTarget, prefix: str = "") -> list[str]:
    return sorted(stat.key for page in target.list(prefix) for stat in page)


def litter(root: Path) -> list[str]:
    return names(root / "_syncd" / "tmp")


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


class TestSymlinks:
    @pytest.mark.parametrize("where", ["12", "12/_trash", "_syncd", "_syncd/tmp"])
    def test_a_linked_folder_is_never_followed(self, root: Path, outside: Path, where: str) -> None:
        (root / where).parent.mkdir(parents=True)
        (root / where).symlink_to(outside)
        calls: list[Callable[[LocalTarget], object]] = [
            lambda target: target.put(f"{where}/1.json", b"new"),
            lambda target: target.create(f"{where}/2.json", b"new"),
            lambda target: target.put_stream(f"{where}/3.json", lambda: [b"new"]),
            lambda target: target.get(f"{where}/1.json"),
            lambda target: target.copy(f"{where}/1.json", "stolen"),
            lambda target: target.delete([f"{where}/1.json"]),
            lambda target: keys(target, f"{where}/"),
        ]
        for call in calls:
            target = opened(root)
            with pytest.raises(TargetError, match=rf"{where}.*symlink"):  # noqa: PT012 - a put may tell it at the flush
                call(target)
                target.flush()
        assert keys(opened(root)) == []
        assert {path.name: path.read_bytes() for path in outside.iterdir()} == {"1.json": b"outside"}

    def test_a_linked_file_is_replaced_or_removed_but_never_read_or_written_through(self, root: Path, target: LocalTarget, outside: Path) -> None:
        (root / "12").mkdir(parents=True)
        (root / "12" / "1.json").symlink_to(outside / "1.json")
        (root / "12" / "2.json").symlink_to(outside / "1.json")
        assert keys(target) == []
        with pytest.raises(TargetError, match=r"12/1\.json: a symlink is in the way"):
            target.get("12/1.json")
        with pytest.raises(TargetError, match="symlink"):
            target.copy("12/1.json", "stolen")
        assert target.create("12/1.json", b"new") is False
        put(target, "12/1.json", b"new")
        target.delete(["12/2.json"])
        assert not (root / "12" / "1.json").is_symlink()
        assert keys(target) == ["12/1.json"]
        assert (outside / "1.json").read_bytes() == b"outside"

    def test_the_root_itself_may_be_a_link(self, tmp_path: Path, outside: Path) -> None:
        (tmp_path / "link").symlink_to(outside)
        target = opened(tmp_path / "link")
        put(target, "1/2.json", b"x")
        assert (outside / "1" / "2.json").read_bytes() == b"x"
        assert target.place == opened(outside).place


class TestTrouble:
    def test_a_full_disk_stops_the_run_and_tears_nothing(self, tmp_path: Path) -> None:
        with mounted(tmp_path, "size=64k") as root:
            target = opened(root)
            put(target, "1/1.json", b"old")

            def fill() -> None:
                for number in range(1, 40):
                    put(target, f"1/{number}.json", b"x" * 8192)

            with pytest.raises(TargetError, match="the disk is full"):
                fill()
            assert all(stat.size == 8192 for page in opened(root).list("") for stat in page)
            assert litter(root) == []
            target.sweep()
            target.delete([f"1/{number}.json" for number in range(1, 5)])
            put(target, "1/1.json", b"room again")
            assert target.get("1/1.json") == b"room again"

    def test_a_full_disk_leaves_the_old_file(self, tmp_path: Path) -> None:
        with mounted(tmp_path, "size=64k") as root:
            target = opened(root)
            put(target, "1/1.json", b"old")
            writes: list[Callable[[], object]] = [
                lambda: put(target, "1/1.json", b"x" * 100_000),
                lambda: target.put_stream("1/1.json", lambda: [b"x" * 10_000] * 10),
            ]
            for write in writes:
                with pytest.raises(TargetError, match="the disk is full"):
                    write()
            assert target.get("1/1.json") == b"old"
            assert litter(root) == []

    def test_a_read_only_file_system_stops_the_run(self, tmp_path: Path) -> None:
        with mounted(tmp_path, "size=64k") as root:
            put(opened(root), "1/1.json", b"old")
            subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
            target = opened(root)
            writes: list[Callable[[], object]] = [
                lambda: target.put("1/2.json", b"new"),
                lambda: target.delete(["1/1.json"]),
                lambda: target.create("1/3.json", b""),
            ]
            for write in writes:
                with pytest.raises(TargetError, match="read-only"):
                    write()
            assert target.get("1/1.json") == b"old"

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_a_folder_without_permission_is_refused(self, root: Path, target: LocalTarget) -> None:
        root.mkdir(mode=0o500)
        with pytest.raises(AccessError, match="permission denied"):
            target.put("1/2.json", b"x")

    @pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM])
    def test_refused_means_access(self, monkeypatch: pytest.MonkeyPatch, target: LocalTarget, code: int) -> None:
        monkeypatch.setattr("os.mkdir", failing(code))
        with pytest.raises(AccessError, match="let this user"):
            target.put("1/2.json", b"x")

    def test_a_name_too_long_fails_that_task_alone(self, root: Path, target: LocalTarget) -> None:
        for call in (lambda: target.put("1/" + "é" * 128, b"x"), lambda: target.create("1/" + "x" * 256, b"x")):
            with pytest.raises(TaskError, match="too long"):
                call()
        put(target, "1/2.json", b"x")
        assert keys(target) == ["1/2.json"]
        assert litter(root) == []

    @pytest.mark.parametrize("call", ["rename", "fsync"])
    def test_after_a_failed_flush_nothing_is_called_durable_until_swept(
        self, monkeypatch: pytest.MonkeyPatch, root: Path, target: LocalTarget, call: str
    ) -> None:
        target.put("1/2.json", b"lost")
        with monkeypatch.context() as broken:
            broken.setattr(f"os.{call}", failing(errno.EIO))
            with pytest.raises(TargetError, match="the disk answers with errors"):
                target.flush()
        for again in (target.flush, lambda: put(target, "1/3.json", b"x"), lambda: target.delete(["1/4.json"])):
            with pytest.raises(TargetError, match="the disk answers with errors"):
                again()
        assert litter(root) == []
        target.sweep()
        put(target, "1/2.json", b"again")
        assert target.get("1/2.json") == b"again"

    def test_a_folder_where_a_file_belongs_is_named(self, root: Path, target: LocalTarget) -> None:
        (root / "1" / "2.json").mkdir(parents=True)
        target.put("1/2.json", b"x")
        with pytest.raises(TargetError, match=r"1/2\.json: .*not a file.*remove it"):
            target.flush()

    def test_an_interrupted_flush_is_no_success(self, monkeypatch: pytest.MonkeyPatch, root: Path, target: LocalTarget) -> None:
        def interrupt(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        target.put("1/2.json", b"x")
        with monkeypatch.context() as broken:
            broken.setattr("os.rename", interrupt)
            with pytest.raises(KeyboardInterrupt):
                target.flush()
        with pytest.raises(TargetError, match="interrupted"):
            target.flush()
        assert litter(root) == []

    def test_what_is_no_file_is_never_listed_and_never_waited_for(self, root: Path, target: LocalTarget) -> None:
        put(target, "1/2.json", b"x")
        os.mkfifo(root / "1" / "pipe")
        (root / "1" / "folder").mkdir()
        Path(os.fsdecode(bytes(root / "1") + b"/\xff.json")).write_bytes(b"no UTF-8")
        assert keys(target) == ["1/2.json"]
        assert target.get("1/pipe") == b""
        with pytest.raises(TargetError, match="not a file"):
            target.get("1/folder")
        with pytest.raises(TargetError, match="1/folder"):
            target.delete(["1/2.json", "1/folder"])
        assert keys(target) == []


class TestDurability:
    def test_bytes_come_before_names_and_names_before_folders(self, monkeypatch: pytest.MonkeyPatch, root: Path, target: LocalTarget) -> None:
        target.put("1/2/3.json", b"x")
        seen: list[str] = []
        rename, libc = os.rename, folders._libc()

        def renaming(old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
            seen.append("rename")
            rename(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

        class Libc:
            def syncfs(self, fd: int) -> int:
                seen.append("syncfs")
                return int(libc.syncfs(fd))

        monkeypatch.setattr(folders, "_libc", Libc)
        monkeypatch.setattr("os.rename", renaming)
        watch_fsync(monkeypatch, lambda path: seen.append(str(path.relative_to(root))))
        target.flush()
        assert seen == ["syncfs", "rename", "1/2", "1", "."]
        seen.clear()
        target.delete(["1/2/3.json"])
        target.flush()
        assert seen == ["1/2", "1", "."]
        seen.clear()
        assert target.create("4/5.json", b"x")
        assert seen[0].startswith("_syncd/tmp/")
        assert seen[1:] == ["4", "."]

    @pytest.mark.parametrize("last", ["delete", "flush"])
    def test_a_copy_is_durable_before_its_source_goes(self, monkeypatch: pytest.MonkeyPatch, target: LocalTarget, last: str) -> None:
        put(target, "1/2.json", b"x")
        assert target.copy("1/2.json", "1/_trash/2.json")
        with monkeypatch.context() as broken:
            broken.setattr("os.fsync", failing(errno.EIO))
            with pytest.raises(TargetError, match="the disk answers with errors"):
                target.flush() if last == "flush" else target.delete(["1/2.json"])
        with pytest.raises(TargetError, match="the disk answers with errors"):
            target.delete(["1/2.json"])
        assert target.get("1/2.json") == b"x"

    def test_a_flush_leaves_nothing_for_the_collector(self, root: Path) -> None:
        """A daemon flushes for months, and its collector seldom comes."""

        def flushed(key: str) -> None:
            target = LocalTarget(root, 1)
            target.put(key, b"x")
            target.flush()

        flushed("a")
        gc.collect()
        for key in ("b", "c", "d"):
            flushed(key)
        assert gc.collect() == 0

    def test_a_sweep_keeps_the_speed(self, monkeypatch: pytest.MonkeyPatch, root: Path, target: LocalTarget) -> None:
        put(target, "1/2.json", b"x")
        again = opened(root)
        again.sweep()
        seen: list[Path] = []
        watch_fsync(monkeypatch, seen.append)
        again.put("1/3.json", b"x")
        if folders.trusts_syncfs(folders.open_folder(root, "")):
            assert seen == []

    def test_a_root_that_somebody_removed_is_made_anew(self, root: Path, target: LocalTarget) -> None:
        put(target, "1/2.json", b"x")
        shutil.rmtree(root)
        put(target, "1/3.json", b"y")
        assert keys(target) == ["1/3.json"]

    def test_new_parents_of_the_root_are_durable_too(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        seen: list[str] = []
        watch_fsync(monkeypatch, lambda path: seen.append(str(path)))
        opened(tmp_path / "a" / "b").put("1/2.json", b"x")
        assert seen[:2] == [str(tmp_path), str(tmp_path / "a")]

    @pytest.mark.skipif(sys.platform != "linux", reason="syncfs is Linux")
    def test_a_failed_syncfs_is_told(self, monkeypatch: pytest.MonkeyPatch, root: Path, target: LocalTarget) -> None:
        class Libc:
            def syncfs(self, fd: int) -> int:
                return -1

        target.put("1/2.json", b"x")
        monkeypatch.setattr(folders, "_libc", Libc)
        monkeypatch.setattr("ctypes.get_errno", lambda: errno.EIO)
        with pytest.raises(TargetError, match="the disk answers with errors"):
            target.flush()
        assert not (root / "1" / "2.json").exists()

    def test_a_folder_moved_away_between_flushes_is_made_anew(self, root: Path, target: LocalTarget) -> None:
        put(target, "1/2.json", b"x")
        (root / "1").rename(root.parent / "moved")
        target.put("1/3.json", b"y")
        target.flush()
        assert names(root / "1") == ["3.json"]
        assert names(root.parent / "moved") == ["2.json"]


class TestFolders:
    def test_many_threads_many_folders_and_no_leak(self, target: LocalTarget) -> None:
        put(target, "1/2.json", b"x")
        before = len(names(Path("/proc/self/fd")))
        with ThreadPoolExecutor(16) as pool:
            for turn in range(5):
                list(pool.map(lambda n, turn=turn: target.put(f"{n % 10}/{n % 3}/{n}.json", b"%d %d" % (n, turn)), range(100)))
                target.flush()
        assert all(target.get(f"{n % 10}/{n % 3}/{n}.json") == b"%d 4" % n for n in range(100))
        assert len(keys(target)) == 101
        target.close()
        assert len(names(Path("/proc/self/fd"))) <= before

    def test_two_listings_at_a_time_do_not_disturb_each_other(self, monkeypatch: pytest.MonkeyPatch, target: LocalTarget) -> None:
        monkeypatch.setattr(local, "_PAGE", 1)
        for number in range(300):
            target.put(f"1/{number}.json", b"")
        target.flush()
        one, two = target.list("1/"), target.list("1/")
        assert len(list(zip(one, two, strict=True))) == 300

    def test_reading_makes_nothing(self, root: Path, target: LocalTarget) -> None:
        assert target.get("1/2.json") is None
        assert keys(target) == []
        target.delete(["1/2.json"])
        target.sweep()
        target.close()
        assert not root.exists()

    def test_files_and_folders_honour_the_umask(self, root: Path, target: LocalTarget) -> None:
        old = os.umask(0o027)
        try:
            put(target, "1/2.json", b"x")
        finally:
            os.umask(old)
        assert (root / "1" / "2.json").stat().st_mode & 0o777 == 0o640
        assert (root / "1").stat().st_mode & 0o777 == 0o750

    def test_a_copied_folder_keeps_its_etags(self, root: Path, target: LocalTarget, tmp_path: Path) -> None:
        etag = target.put("1/2.json", b"x")
        target.flush()
        subprocess.run(["cp", "-a", str(root), str(tmp_path / "again")], check=True)
        assert [stat.etag for page in opened(tmp_path / "again").list("") for stat in page] == [etag]

    def test_without_hard_links_creation_is_not_conditional_but_whole(self, monkeypatch: pytest.MonkeyPatch, root: Path, target: LocalTarget) -> None:
        monkeypatch.setattr("os.link", failing(errno.EPERM))
        assert target.conditional() is False
        assert target.create("_syncd/owner.json", b"mine") is True
        assert target.create("_syncd/owner.json", b"other") is False
        assert target.get("_syncd/owner.json") == b"mine"
        assert litter(root) == []


def watch_fsync(monkeypatch: pytest.MonkeyPatch, tell: Callable[[Path], None]) -> None:
    fsync = os.fsync

    def watched(fd: int) -> None:
        tell(Path(f"/proc/self/fd/{fd}").readlink())
        fsync(fd)

    monkeypatch.setattr("os.fsync", watched)


def failing(code: int) -> Callable[..., object]:
    def fail(*_: object, **__: object) -> object:
        raise OSError(code, os.strerror(code))

    return fail


@contextlib.contextmanager
def mounted(tmp_path: Path, options: str) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=False, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
