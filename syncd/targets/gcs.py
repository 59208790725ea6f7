"""Google Cloud Storage as Target.

Credentials are google-auth's: a service-account file, else the application default (workload identity, metadata server, gcloud's login).
Refuses nothing that `objects` does not refuse. With an `endpoint` and no account nothing is signed: that is for stand-ins in tests.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from obstore.store import GCSStore

from syncd.clock import Clock, parse_time
from syncd.errors import AccessError, TargetError, discreet
from syncd.targets.base import Finding, Sign, Version
from syncd.targets.objects import ObjectConfig, ObjectTarget, Vendor, eaten, shared

if TYPE_CHECKING:
    from obstore.store import GCSConfig, GCSCredential

_SCOPES = ("https://www.googleapis.com/auth/devstorage.read_write",)
_OLD_VERSIONS = {"numNewerVersions", "daysSinceNoncurrentTime", "noncurrentTimeBefore"}
_HINT = "Check the account this target runs as, and that it may get, create, delete and list objects (role Storage Object User)"

# Writes a second that a bucket is made for at first, and seconds in which they may double: https://cloud.google.com/storage/docs/request-rate
_RAMP = (1000.0, 20 * 60.0)


class Config(ObjectConfig):
    """A bucket of Google Cloud Storage."""

    type: Literal["gcs"]
    service_account_file: Path | None = None
    """Default: application default credentials."""
    endpoint: str | None = None
    """Another URL than Google's, for tests; without `service_account_file` nothing is signed there."""


def open(config: Config, clock: Clock) -> ObjectTarget:  # noqa: A001 - every edge is opened by `open`
    """The Target; asks nobody anything yet. Raises TargetError when it can't be made of this config and environment."""
    token = _nobody if _unsigned(config) else _provider(config.service_account_file)
    settings: GCSConfig = {"base_url": config.endpoint} if config.endpoint else {}
    make = partial(GCSStore, config=settings, credential_provider=token)
    ramp = None if config.endpoint else _RAMP
    versions = partial(_versions, config, shared(partial(_client, config), clock, math.inf))
    vendor = Vendor("gs", _HINT, bulk_delete=False, make=make, inspect=partial(_inspect, config), versions=versions, ramp=ramp)
    return ObjectTarget(vendor, config, clock)


def _unsigned(config: Config) -> bool:
    return config.endpoint is not None and config.service_account_file is None


def _nobody() -> GCSCredential:
    return {"token": "anonymous", "expires_at": None}  # obstore's `skip_signature` asks the metadata server all the same


def _provider(account: Path | None) -> Callable[[], GCSCredential]:
    """Tokens as obstore asks for them; the account is found at the first request."""
    found = cache(partial(_credentials, account))

    def provide() -> GCSCredential:
        from google.auth.transport.requests import Request

        credentials = found()
        credentials.refresh(Request())
        expiry = credentials.expiry
        return {"token": credentials.token, "expires_at": expiry and expiry.replace(tzinfo=UTC)}

    return provide


def _credentials(account: Path | None) -> Any:  # google-auth ships no types
    if account is None:
        import google.auth

        return google.auth.default(scopes=_SCOPES)[0]
    from google.oauth2.service_account import Credentials

    return Credentials.from_service_account_file(account, scopes=_SCOPES)  # type: ignore[no-untyped-call]  # as above


def _inspect(config: Config) -> Iterator[Finding]:
    """How the bucket is set up, as google-cloud-storage is told."""
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError

    try:
        with closing(_client(config)) as client:
            bucket = client.get_bucket(config.bucket, timeout=30, retry=None)
    except (GoogleAPIError, GoogleAuthError, OSError, ValueError, AttributeError) as error:  # AttributeError: a body it knows no form of
        message = f"how the bucket is set up can't be asked for: {discreet(str(error)).partition(chr(10))[0][:200]}"
        yield Finding(Sign.ADVICE, message, "allow storage.buckets.get (role Storage Bucket Viewer)")
        return
    undelete = (bucket.soft_delete_policy.retention_duration_seconds or 0) // 86400
    if bucket.versioning_enabled or undelete:
        how = "versioning is on" if bucket.versioning_enabled else f"soft delete keeps files for {undelete} days"
        yield Finding(Sign.OK, f"{how}: what is overwritten or deleted can be had back", forgets=not bucket.versioning_enabled)
    else:
        message = "versioning and soft delete are off: what somebody overwrites or deletes is lost"
        yield Finding(Sign.ADVICE, message, "switch one of them on for the bucket", forgets=True)
    yield Finding(Sign.OK, f"files are encrypted ({bucket.default_kms_key_name or 'with keys of Google'})")
    if bucket.retention_period or bucket.default_event_based_hold:
        message = "the bucket's retention policy or event-based hold forbids to replace a file, which each change of a task does"
        yield Finding(Sign.WRONG, message, "remove it, or use another bucket; soft delete or versioning protect a backup without that")
    for rule in bucket.lifecycle_rules:  # every storage class of Google's can be read at once
        when = rule.get("condition", {})
        if rule["action"]["type"] == "Delete" and when.get("isLive") is not False and not _OLD_VERSIONS & when.keys():
            yield from eaten("Delete deletes files", when.get("matchesPrefix") or [""], config.prefix)


def _versions(config: Config, client_of: Callable[[], Any], path: str) -> Iterator[Version]:
    from google.api_core.exceptions import Forbidden, GoogleAPIError
    from google.auth.exceptions import GoogleAuthError

    try:
        blobs = client_of().list_blobs(config.bucket, prefix=path, versions=True, timeout=30, retry=None)
        for blob in sorted((blob for blob in blobs if blob.name == path), key=lambda blob: blob.generation, reverse=True):
            until = parse_time(blob.time_deleted.isoformat()) if blob.time_deleted else None
            yield Version(parse_time(blob.time_created.isoformat()), until, blob.download_as_bytes(timeout=30))
    except (GoogleAPIError, GoogleAuthError, OSError, ValueError, AttributeError) as error:  # AttributeError: a body it knows no form of
        text = f"gs://{config.bucket}/{path}: its versions can't be read: {discreet(str(error)).partition(chr(10))[0][:200]}"
        if isinstance(error, (Forbidden, GoogleAuthError)):
            raise AccessError(f"{text}. {_HINT}") from error
        raise TargetError(text) from error


def _client(config: Config) -> Any:  # google-cloud-storage ships no types
    from google.auth.credentials import AnonymousCredentials
    from google.cloud.storage import Client
    from requests.adapters import HTTPAdapter

    credentials = AnonymousCredentials() if _unsigned(config) else _credentials(config.service_account_file)  # type: ignore[no-untyped-call]  # as above
    options = {"api_endpoint": config.endpoint} if config.endpoint else None
    client = Client(project=None, credentials=credentials, client_options=options)
    for scheme in ("https://", "http://"):  # the vendor's own way to use it from many threads
        client._http.mount(scheme, HTTPAdapter(pool_maxsize=config.concurrency))  # noqa: SLF001 - likewise
    return client
