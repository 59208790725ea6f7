"""The image, built from deploy/Dockerfile by buildah, and a container of it.

There is no registry and no container engine here: the base is the small Debian that .ci/tools made, the packages come from a folder, and the
container is what the kernel offers: namespaces of its own for mounts and processes, a root that is read-only, a user without rights.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any, Self

from tests.deploy.tools import DEPLOY, ROOT, absent, run, tool

DEBIAN = ROOT / ".debian"
PYTHON = "3.11"  # Debian's
SLOW = 300.0  # seconds


def debian() -> Path:
    """The small Debian, a file system in a folder."""
    if os.geteuid() != 0:
        absent("only root can build an image or boot a machine here")
    return DEBIAN if DEBIAN.exists() else absent("there is no .debian: run .ci/tools")


class Image:
    """`root`: its file system. Gone when it is left."""

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="syncd-image-", ignore_cleanup_errors=True)
        self._home = Path(self._folder.name)
        self._commit_base(debian())
        self._download()
        self.said = self._build()
        self.root = Path(self.buildah("mount", self.buildah("from", "syncd")))
        return self

    def __exit__(self, *_: object) -> None:
        self.buildah("umount", "--all")
        self._folder.cleanup()

    def buildah(self, *words: str | Path) -> str:
        """Its answer, without the line end."""
        return run([tool("buildah"), "--root", self._home / "store", "--runroot", self._home / "run", *words], timeout=SLOW).strip()

    def config(self) -> dict[str, Any]:
        """What the image says of how it is run."""
        found: dict[str, Any] = json.loads(self.buildah("inspect", "--type", "image", "syncd"))["Docker"]["config"]
        return found

    def _commit_base(self, debian: Path) -> None:
        (self._home / "Base").write_text("FROM scratch\nCOPY . /\n")
        self.buildah("bud", "-q", "--isolation", "chroot", "-t", "base", "-f", self._home / "Base", debian)

    def _download(self) -> None:
        """What pip needs, so that it need not know how this machine reaches a package index."""
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())
        needed = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
        wheels: list[str | Path] = ["--only-binary=:all:", "--python-version", PYTHON, "-d", self._home / "wheels"]
        run([sys.executable, "-m", "pip", "download", "-q", *wheels, *needed], timeout=SLOW)
        (self._home / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheels\n")

    def _build(self) -> str:
        """As `docker build` would: the format that knows health checks."""
        given = ["--volume", f"{self._home}/wheels:/wheels:ro", "--volume", f"{self._home}/pip.conf:/etc/pip.conf:ro"]
        file: list[str | Path] = ["-f", DEPLOY / "Dockerfile", "--ignorefile", DEPLOY / "Dockerfile.dockerignore"]
        how = ["--format", "docker", "--isolation", "chroot", "--build-arg", "BASE=localhost/base"]
        return self.buildah("bud", *how, *given, *file, "-t", "syncd", ROOT)


class Container:
    """A process with the image as its world. mounts: folders by where it sees them; it may write to /tmp and to its volume only."""

    def __init__(self, image: Image, log: Path, mounts: dict[str, Path]) -> None:
        config = image.config()
        root = shlex.quote(str(image.root))
        binds = [f"mkdir -p {root}{at} && mount --bind {shlex.quote(str(path))} {root}{at}" for at, path in mounts.items()]
        environment = " ".join(shlex.quote(each) for each in config["Env"])
        program = " ".join(shlex.quote(word) for word in (*config["Entrypoint"], *config["Cmd"]))
        enter = f"setpriv --no-new-privs chroot --userspec={config['User']} --groups= {root}"
        script = [
            f"mount --bind {root} {root}", *binds, f"mount -t proc proc {root}/proc", f"mount -t tmpfs -o mode=1777 tmp {root}/tmp",
            f"mount --rbind /dev {root}/dev", f"mount -o remount,bind,ro {root}", f"exec {enter} env -i {environment} {program}",
        ]  # fmt: skip
        self._enter = f"{enter} env -i {environment}"
        self.log = log
        self._out = log.open("ab")
        command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", "\n".join(script)]
        self.process = subprocess.Popen(command, stdout=self._out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)

    def pid(self) -> int:
        """Process 1 of the container, as it is called outside."""
        return int(Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()[0])

    def exec(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Another process in it, as the same user."""
        command = ["nsenter", "-t", str(self.pid()), "--mount", "--pid", "sh", "-c", f"{self._enter} {shlex.join(words)}"]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(30)
        self._out.close()
