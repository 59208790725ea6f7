"""S3 and everything that speaks like it, as Target.

With static keys nothing slow is imported; anything else asks botocore's whole chain (profile, SSO, web identity, container,
instance) when the first request is signed. Refuses nothing that `objects` does not refuse.
Objects get the server-side encryption and storage class that are configured; copies (the trash) get the encryption, and the bucket's standard class.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import urlsplit

from obstore.store import S3Store
from pydantic import field_validator, model_validator

from syncd.clock import SECOND, Clock, to_datetime
from syncd.errors import TargetError
from syncd.fields import Duration, Fields, Secret
from syncd.retry import Retry
from syncd.targets.base import checked_prefix
from syncd.targets.objects import CLIENT, NO_RETRY, ObjectTarget, Place

if TYPE_CHECKING:
    from botocore.credentials import Credentials
    from botocore.session import Session
    from obstore.store import ClientConfig, S3Config, S3Credential

_HINT = "Check the keys, profile or role that this target is given, and what they allow: GetObject, PutObject, DeleteObject, ListBucket"
# botocore renews credentials at the latest 10 minutes before they end; what it gave is used for less than that.
_LIFETIME = 8 * 60 * SECOND


class Config(Fields):
    """A bucket of Amazon S3, or of any store that speaks like it (`endpoint`)."""

    type: Literal["s3"]
    bucket: str
    prefix: str = ""
    """Stands before every key; a slash is added."""
    region: str | None = None
    """Default: what the environment or the profile says, else us-east-1."""
    endpoint: str | None = None
    """The store's URL, when it is not Amazon's."""
    path_style: bool | None = None
    """The bucket's name in the path instead of the host. Default: with an `endpoint`, and for names with dots."""
    profile: str | None = None
    """A profile of the AWS config files."""
    role_arn: str | None = None
    """A role to assume with the credentials found."""
    access_key_id: Secret | None = None
    secret_access_key: Secret | None = None
    session_token: Secret | None = None
    sse: Literal["AES256", "aws:kms"] | None = None
    """Server-side encryption of each object. Default: the bucket's own."""
    kms_key_id: str | None = None
    """The KMS key; means `sse: aws:kms`."""
    storage_class: str | None = None
    """Like STANDARD_IA or INTELLIGENT_TIERING. Default: STANDARD."""
    ca_file: Path | None = None
    """PEM file of certificate authorities to trust besides the system's."""
    concurrency: int = 64
    """Uploads at a time."""
    retry_for: Duration = 60.0
    """How long a request is tried again."""

    _prefix = field_validator("prefix")(checked_prefix)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("`access_key_id` and `secret_access_key` come together")
        if self.session_token and not self.access_key_id:
            raise ValueError("`session_token` needs `access_key_id` and `secret_access_key`")
        if self.access_key_id and (self.profile or self.role_arn):
            raise ValueError("give either static keys or a `profile` / `role_arn`, not both")
        if self.kms_key_id and self.sse == "AES256":
            raise ValueError("`kms_key_id` needs `sse: aws:kms`")
        if self.endpoint and urlsplit(self.endpoint).scheme not in ("http", "https"):
            raise ValueError("`endpoint` is a URL like https://storage.example.com")
        return self


def open(config: Config, clock: Clock) -> ObjectTarget:  # noqa: A001 - every edge is opened by `open`
    """The Target; asks nobody anything yet. Raises TargetError when `ca_file` can't be read."""
    # botocore and obstore both obey these variables; taken here, the place is named and addressed as what it is.
    if endpoint := config.endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
        config = config.model_copy(update={"endpoint": endpoint})
    options: ClientConfig = {**CLIENT, "allow_http": (config.endpoint or "").startswith("http://")}
    if config.ca_file:
        options["root_certificate"] = _read(config.ca_file)
    store = S3Store(
        config.bucket,
        config=_settings(config),
        client_options=options,
        retry_config=NO_RETRY,
        credential_provider=_provider(config, clock),
    )
    place = Place(
        name=f"s3://{config.bucket}/{config.prefix}".rstrip("/") + (f"?endpoint={_address(config.endpoint)}" if config.endpoint else ""),
        prefix=config.prefix,
        attributes={"Storage-Class": config.storage_class} if config.storage_class else {},
        bulk_delete=True,
        credentials_hint=_HINT,
        abort=partial(_abort, config, clock),
    )
    return ObjectTarget(store, place, Retry(clock, retry_for=config.retry_for, exhausted=TargetError), config.concurrency)


def _abort(config: Config, clock: Clock, path: str) -> None:
    """Abort the unfinished uploads of this path. Needed after a kill only, so botocore's slow client is good enough."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        client = _client(config, clock)
        for page in client.get_paginator("list_multipart_uploads").paginate(Bucket=config.bucket, Prefix=path):
            for upload in page.get("Uploads", ()):
                if upload["Key"] == path:
                    client.abort_multipart_upload(Bucket=config.bucket, Key=path, UploadId=upload["UploadId"])
    except (BotoCoreError, ClientError, LookupError) as error:
        raise TargetError(f"s3://{config.bucket}/{path}: its unfinished upload can't be removed: {error}") from error


def _client(config: Config, clock: Clock) -> Any:
    from botocore.config import Config as ClientSettings

    keys = _provider(config, clock)()
    return _session(config.profile).create_client(
        "s3",
        region_name=config.region,
        endpoint_url=config.endpoint,
        verify=str(config.ca_file) if config.ca_file else None,
        aws_access_key_id=keys["access_key_id"],
        aws_secret_access_key=keys["secret_access_key"],
        aws_session_token=keys.get("token"),
        config=ClientSettings(s3={"addressing_style": "path" if _path_style(config) else "virtual"}),
    )


def _path_style(config: Config) -> bool:
    return (config.endpoint is not None or "." in config.bucket) if config.path_style is None else config.path_style


def _settings(config: Config) -> S3Config:
    settings: S3Config = {}
    path_style = _path_style(config)
    settings["virtual_hosted_style_request"] = not path_style
    if region := config.region or (None if config.access_key_id else _session(config.profile).get_config_variable("region")):
        settings["region"] = region
    if config.endpoint:
        scheme, _, host = config.endpoint.rstrip("/").partition("://")
        settings["endpoint"] = f"{scheme}://{host}" if path_style else f"{scheme}://{config.bucket}.{host}"
    if encryption := "aws:kms" if config.kms_key_id else config.sse:
        settings["server_side_encryption"] = encryption
    if config.kms_key_id:
        settings["sse_kms_key_id"] = config.kms_key_id
    return settings


def _provider(config: Config, clock: Clock) -> Callable[[], S3Credential]:
    """Credentials as obstore asks for them: the static keys, else what botocore finds at the first request, and renews.

    Static keys come this way too: else obstore would add an AWS_SESSION_TOKEN of the environment, which belongs to other keys.
    """
    if config.access_key_id and config.secret_access_key:
        static: S3Credential = {
            "access_key_id": config.access_key_id.get_secret_value(),
            "secret_access_key": config.secret_access_key.get_secret_value(),
            "token": config.session_token.get_secret_value() if config.session_token else None,
            "expires_at": None,
        }
        return lambda: static
    found: list[Credentials] = []

    def provide() -> S3Credential:
        if not found:
            found.append(_credentials(config))
        now = found[0].get_frozen_credentials()
        if not (now.access_key and now.secret_key):
            raise LookupError("the AWS credentials found are incomplete")
        return {
            "access_key_id": now.access_key,
            "secret_access_key": now.secret_key,
            "token": now.token,
            "expires_at": to_datetime(clock.now() + _LIFETIME),
        }

    return provide


def _credentials(config: Config) -> Credentials:
    session = _session(config.profile)
    credentials = session.get_credentials()
    if credentials is None:
        raise LookupError("no AWS credentials found in the environment, the config files or this machine's role")
    if config.role_arn is None:
        return credentials
    from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials

    fetcher = AssumeRoleCredentialFetcher(session.create_client, credentials, config.role_arn, extra_args={"RoleSessionName": "syncd"})
    return DeferredRefreshableCredentials(fetcher.fetch_credentials, "assume-role")


def _session(profile: str | None) -> Session:
    from botocore.session import Session

    return Session(profile=profile)


def _address(endpoint: str) -> str:
    """The endpoint as it may be shown: without a user or password."""
    parts = urlsplit(endpoint.rstrip("/"))
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _read(ca_file: Path) -> bytes:
    try:
        return ca_file.read_bytes()
    except OSError as error:
        raise TargetError(f"ca_file {ca_file}: {error.strerror}") from error
