"""What a user would pick instead, as commands that copy a folder into a store of a test. `make bench` installs them; one that is missing is None.

Each is pointed at its store by environment alone and sees nothing of its user's own settings. Programs of this house use the vendors' libraries as
their documentation does: one client, a pool of threads.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.bench.process import ROOT, Cost, run

_PLACES = os.pathsep.join([str(Path(sys.executable).parent), str(ROOT / "bench/awscli/bin"), os.environ.get("PATH", "")])

_LOOP = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
folder, url, prefix, threads = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
{client}
with ThreadPoolExecutor(threads) as pool:
    for _ in pool.map(put, (path for path in folder.rglob("*") if path.is_file())):
        pass
"""
_BOTO3 = """
import boto3
from botocore.config import Config
s3 = boto3.client("s3", endpoint_url=url, config=Config(max_pool_connections=threads))
def put(path):
    s3.put_object(Bucket="b", Key=f"{prefix}/{path.relative_to(folder)}", Body=path.read_bytes())
"""
_GCS = """
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
bucket = storage.Client("p", credentials=AnonymousCredentials(), client_options={"api_endpoint": url}).bucket("b")
def put(path):
    bucket.blob(f"{prefix}/{path.relative_to(folder)}").upload_from_string(path.read_bytes(), "application/json")
"""


def _command(tool: str, folder: Path, url: str, prefix: str, workers: int) -> list[str]:
    match tool:
        case "rclone":
            return ["rclone", "copy", "--transfers", str(workers), str(folder), f"x:b/{prefix}"]
        case "s5cmd":
            return ["s5cmd", "--log", "error", "--endpoint-url", url, "--numworkers", str(workers), "cp", f"{folder}/", f"s3://b/{prefix}/"]
        case "aws s3 cp":
            return ["aws", "s3", "cp", "--recursive", "--quiet", "--endpoint-url", url, str(folder), f"s3://b/{prefix}"]
        case "aws s3 sync":
            return ["aws", "s3", "sync", "--quiet", "--endpoint-url", url, str(folder), f"s3://b/{prefix}"]
    client = {"boto3": _BOTO3, "google-cloud-storage": _GCS}[tool]
    return [sys.executable, "-c", _LOOP.replace("{client}", client), str(folder), url, prefix, str(workers)]


def copier(tool: str, url: str) -> Callable[[Path, str, int], Cost] | None:
    """copy(folder, prefix, workers) by rclone, s5cmd, `aws s3 cp`, `aws s3 sync`, boto3 or google-cloud-storage; None when it is not installed."""
    program = shutil.which(_command(tool, Path(), "", "", 0)[0], path=_PLACES)
    if program is None:
        return None
    environment = _environment(url)
    return lambda folder, prefix, workers: run([program, *_command(tool, folder, url, prefix, workers)[1:]], environment)


def _environment(url: str) -> Mapping[str, str]:
    return {
        "PATH": os.environ.get("PATH", ""),
        "HOME": os.devnull,
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "RCLONE_CONFIG": os.devnull,
        "RCLONE_CONFIG_X_TYPE": "s3",
        "RCLONE_CONFIG_X_PROVIDER": "Other",
        "RCLONE_CONFIG_X_ENDPOINT": url,
        "RCLONE_CONFIG_X_REGION": "us-east-1",
        "RCLONE_CONFIG_X_ACCESS_KEY_ID": "a",
        "RCLONE_CONFIG_X_SECRET_ACCESS_KEY": "s",
        "RCLONE_CONFIG_X_FORCE_PATH_STYLE": "true",
        "RCLONE_CONFIG_X_NO_CHECK_BUCKET": "true",
    }
