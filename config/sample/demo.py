"""`make run`: the sample exports backed up into ./backup, changed a little, and backed up again. Needs no account and no server.

Works on copies in ./.demo and always starts from nothing, so that what it shows is the same each time.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEMO, BACKUP = ROOT / ".demo", ROOT / "backup"
EXPORTS = DEMO / "exports"


def main() -> None:
    for folder in (DEMO, BACKUP):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "config/sample/exports", EXPORTS)
    time.sleep(2.1)  # a file written a moment ago is read again by the next Run, in case it still grows
    _say("A first Run: three folders of exports (Label Studio and Labelbox) become one file per task.")
    _syncd("sync")
    _tree()
    _say("Somebody edits task 103, and deletes task 104.")
    task = EXPORTS / "cats/103.json"
    body = json.loads(task.read_text("utf-8"))
    body["annotations"][0]["result"][0]["value"]["rectanglelabels"] = ["Sphynx", "Kitten"]
    body["updated_at"] = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())
    task.write_text(json.dumps(body, ensure_ascii=False, indent=2), "utf-8")
    (EXPORTS / "cats/104.json").unlink()
    _say("What would a Run do about it? A Plan touches nothing.")
    _syncd("plan")
    _say("A second Run reads and writes only what changed; the deleted task waits in the trash.")
    _syncd("sync")
    _syncd("trash", "list")
    _say("A third Run finds nothing to do.")
    _syncd("sync", "--json")
    print(f"\nThe backup is in {BACKUP}, the Checkpoint in {DEMO / 'state'}, the config is {ROOT / 'config/demo.yaml'}.")


def _say(text: str) -> None:
    print(f"\n# {text}", flush=True)


def _syncd(*words: str) -> None:
    print(f"$ syncd {' '.join(words)} -c config/demo.yaml", flush=True)
    done = subprocess.run([sys.executable, "-m", "syncd", *words, "-c", str(ROOT / "config/demo.yaml")], cwd=ROOT, check=False)
    if done.returncode:
        raise SystemExit(f"syncd ended with exit code {done.returncode}")


def _tree() -> None:
    print("$ find backup -type f")
    for path in sorted(BACKUP.rglob("*")):
        if path.is_file():
            print(f"  {path.relative_to(ROOT)}  {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
