"""S3 and everything that speaks like it, as Target.

With static keys nothing slow is imported; anything else asks botocore's whole chain (profile, SSO, web identity, container,
instance) when the first request is signed. Refuses nothing that `objects` does not refuse.
Objects get the server-side encryption and storage class that are configured; copies (trash, history) the encryption, and the standard class.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import urlsplit

from obstore.store import S3Store
from pydantic import model_validator

from syncd.clock import SECOND, Clock, parse_time, to_datetime
from syncd.errors import AccessError, TargetError, discreet
from syncd.fields import Secret
from syncd.targets.base import Finding, Sign, Version
from syncd.targets.objects import ObjectConfig, ObjectTarget, Vendor, checked_endpoint, eaten, shared

if TYPE_CHECKING:
    from botocore.credentials import Credentials
    from botocore.session import Session
    from obstore.store import S3Config, S3Credential

_HINT = "Check the keys, profile or role that this target is given, and what they allow: GetObject, PutObject, DeleteObject, ListBucket"
_ARCHIVES = {"GLACIER", "DEEP_ARCHIVE"}
# botocore renews credentials at the latest 10 minutes before they end; what it gave is used for less than that.
_LIFETIME = 8 * 60 * SECOND


class Config(ObjectConfig):
    """A bucket of Amazon S3, or of any store that speaks like it (`endpoint`)."""

    type: Literal["s3"]
    region: str | None = None
    """Default: what the environment or the profile says, else us-east-1."""
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
    """Like STANDARD_IA or INTELLIGENT_TIERING. Default: STANDARD, which copies in trash and history have always."""
    ca_file: Path | None = None
    """PEM file of certificate authorities to trust besides the system's."""

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
        if self.storage_class in _ARCHIVES:
            raise ValueError(
                f"`storage_class` {self.storage_class} can't be read back at once: take GLACIER_IR, or a lifecycle rule for old versions"
            )
        return self


def open(config: Config, clock: Clock) -> ObjectTarget:  # noqa: A001 - every edge is opened by `open`
    """The Target; asks nobody anything yet. Raises TargetError when it can't be made of this config and environment."""
    # botocore and obstore both obey these variables; taken here, the place is named and addressed as what it is.
    if not config.endpoint and (endpoint := os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")):
        try:
            config = config.model_copy(update={"endpoint": checked_endpoint(endpoint)})
        except ValueError as error:
            raise TargetError(f"AWS_ENDPOINT_URL in the environment: {error}") from error
    vendor = Vendor(
        scheme="s3",
        credentials_hint=_HINT,
        bulk_delete=True,
        make=partial(S3Store, config=_settings(config), credential_provider=_provider(config, clock)),
        inspect=partial(_inspect, config, clock),
        versions=partial(_versions, config, shared(partial(_client, config, clock), clock, _LIFETIME / SECOND)),
        attributes={"Storage-Class": config.storage_class} if config.storage_class else {},
        ca_file=config.ca_file,
    )
    return ObjectTarget(vendor, config, clock)


def _path_style(config: Config) -> bool:
    return (config.endpoint is not None or "." in config.bucket) if config.path_style is None else config.path_style


def _settings(config: Config) -> S3Config:
    path_style = _path_style(config)
    settings: S3Config = {"virtual_hosted_style_request": not path_style}
    if region := config.region or (None if config.access_key_id else _found_region(config)):
        settings["region"] = region
    if config.endpoint:
        settings["endpoint"] = config.endpoint if path_style else config.endpoint.replace("://", f"://{config.bucket}.")
    if encryption := "aws:kms" if config.kms_key_id else config.sse:
        settings["server_side_encryption"] = encryption
    if config.kms_key_id:
        settings["sse_kms_key_id"] = config.kms_key_id
    if _is_amazon(config):
        settings["checksum_algorithm"] = "SHA256"  # a bucket with object lock wants one; it is the signature's own digest, so it costs nothing
    return settings


def _is_amazon(config: Config) -> bool:
    """Others may refuse what only Amazon asks for."""
    return config.endpoint is None or (urlsplit(config.endpoint).hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))


def _found_region(config: Config) -> str | None:
    from botocore.exceptions import BotoCoreError

    try:
        return _session(config).get_config_variable("region")  # type: ignore[no-any-return]  # of a str option
    except BotoCoreError as error:
        raise AccessError(f"s3://{config.bucket}: {error}. {_HINT}") from error


def _provider(config: Config, clock: Clock) -> Callable[[], S3Credential]:
    """Credentials as obstore asks for them: the static keys, else what botocore finds at the first request, and renews.

    Static keys come this way too: else obstore would add an AWS_SESSION_TOKEN of the environment, which belongs to other keys.
    """
    if config.access_key_id and config.secret_access_key:
        token = config.session_token.get_secret_value() if config.session_token else None
        return partial(_credential, config.access_key_id.get_secret_value(), config.secret_access_key.get_secret_value(), token)
    found = cache(partial(_credentials, config))

    def provide() -> S3Credential:
        now = found().get_frozen_credentials()
        return {**_credential(now.access_key, now.secret_key, now.token), "expires_at": to_datetime(clock.now() + _LIFETIME)}

    return provide


def _credential(access_key_id: str | None, secret_access_key: str | None, token: str | None) -> S3Credential:
    text = f"{access_key_id}{secret_access_key}{token or ''}"
    if not (access_key_id and secret_access_key and text.isascii() and text.isprintable()):
        raise LookupError("a key is empty, or holds a line break or another character that no key has")  # obstore panics on it
    return {"access_key_id": access_key_id, "secret_access_key": secret_access_key, "token": token, "expires_at": None}


def _credentials(config: Config) -> Credentials:
    session = _session(config)
    credentials = session.get_credentials()
    if credentials is None:
        raise LookupError("no AWS credentials found in the environment, the config files or this machine's role")
    if config.role_arn is None:
        return credentials
    from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials

    fetcher = AssumeRoleCredentialFetcher(session.create_client, credentials, config.role_arn, extra_args={"RoleSessionName": "syncd"})
    return DeferredRefreshableCredentials(fetcher.fetch_credentials, "assume-role")


def _session(config: Config) -> Session:
    from botocore.session import Session

    session = Session(profile=config.profile)
    if config.region:
        session.set_config_variable("region", config.region)  # for STS too: a role of China or GovCloud is assumed there
    return session


def _inspect(config: Config, clock: Clock) -> Iterator[Finding]:
    """How the bucket is set up, as botocore's client is told."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        with closing(_client(config, clock)) as client:
            for call, permission, none, judge in _QUESTIONS:
                try:
                    answer = getattr(client, call)(Bucket=config.bucket)
                except ClientError as error:
                    answer, code = {}, error.response.get("Error", {}).get("Code", "no reason")
                    if code != none:
                        message = f"{call.removeprefix('get_').replace('_', ' ')}: can't be asked for ({discreet(code)})"
                        yield Finding(Sign.ADVICE, message, f"allow {permission}")
                        continue
                yield from judge(answer, config)
    except (BotoCoreError, LookupError) as error:
        yield Finding(Sign.ADVICE, f"how the bucket is set up can't be asked for: {discreet(str(error))}")


def _versions(config: Config, client_of: Callable[[], Any], path: str) -> Iterator[Version]:
    from botocore.exceptions import BotoCoreError, ClientError

    until = None
    try:
        client = client_of()
        pages = client.get_paginator("list_object_versions").paginate(Bucket=config.bucket, Prefix=path)
        found = [each for page in pages for kind in ("Versions", "DeleteMarkers") for each in page.get(kind, ()) if each["Key"] == path]
        # S3 tells whole seconds, and the newest first
        for each in sorted(found, key=lambda each: (each["LastModified"], each["IsLatest"]), reverse=True):
            since = parse_time(each["LastModified"].isoformat())
            if "Size" in each:  # else it marks that the file was deleted
                answer = client.get_object(Bucket=config.bucket, Key=path, VersionId=each["VersionId"])
                yield Version(since, until, answer["Body"].read())
            until = since
    except (BotoCoreError, ClientError, LookupError) as error:
        refused = isinstance(error, LookupError) or "AccessDenied" in str(error)
        text = f"s3://{config.bucket}/{path}: its versions can't be read: {error}"
        if refused:
            raise AccessError(f"{text}. Allow s3:ListBucketVersions and s3:GetObjectVersion") from error
        raise TargetError(text) from error


def _client(config: Config, clock: Clock) -> Any:
    from botocore.config import Config as ClientSettings

    keys = _provider(config, clock)()
    return _session(config).create_client(
        "s3",
        endpoint_url=config.endpoint,
        verify=str(config.ca_file) if config.ca_file else None,
        aws_access_key_id=keys["access_key_id"],
        aws_secret_access_key=keys["secret_access_key"],
        aws_session_token=keys.get("token"),
        config=ClientSettings(
            s3={"addressing_style": "path" if _path_style(config) else "virtual"},
            connect_timeout=10,
            read_timeout=30,
            retries={"total_max_attempts": 2},
            max_pool_connections=config.concurrency,
        ),
    )


def _versioning(answer: Mapping[str, Any], _: Config) -> Iterator[Finding]:
    if answer.get("Status") == "Enabled":
        yield Finding(Sign.OK, "versioning is on: what is overwritten or deleted can be had back")
    else:
        message = "versioning is off: what somebody overwrites or deletes is lost"
        yield Finding(Sign.ADVICE, message, "switch the bucket's versioning on", forgets=True)


def _encryption(answer: Mapping[str, Any], config: Config) -> Iterator[Finding]:
    rules = answer.get("ServerSideEncryptionConfiguration", {}).get("Rules", ())
    own = "aws:kms" if config.kms_key_id else config.sse
    if how := own or next((rule.get("ApplyServerSideEncryptionByDefault", {}).get("SSEAlgorithm") for rule in rules), None):
        yield Finding(Sign.OK, f"files are encrypted ({how})")
    else:
        hint = "set `sse: AES256` or `kms_key_id` here, or the bucket's default encryption"
        yield Finding(Sign.ADVICE, "files are not encrypted by the store", hint)


def _lock(answer: Mapping[str, Any], _: Config) -> Iterator[Finding]:
    if kept := answer.get("ObjectLockConfiguration", {}).get("Rule", {}).get("DefaultRetention"):
        span = f"{kept['Years']} years" if kept.get("Years") else f"{kept.get('Days')} days"
        yield Finding(Sign.OK, f"object lock keeps each version of a file for {span} ({kept.get('Mode', '').lower()})")


def _lifecycle(answer: Mapping[str, Any], config: Config) -> Iterator[Finding]:
    """A rule about older versions, or about objects with tags (ours have none), does no harm."""
    for rule in answer.get("Rules", ()):
        scope = rule.get("Filter", {})
        scope = scope.get("And", scope)
        ends = rule.get("Expiration", {}).keys() & {"Days", "Date"} or any(t.get("StorageClass") in _ARCHIVES for t in rule.get("Transitions", ()))
        if ends and rule.get("Status") == "Enabled" and not scope.keys() & {"Tag", "Tags"}:
            yield from eaten(f"{rule.get('ID', '')!r} deletes or archives files", [scope.get("Prefix") or rule.get("Prefix") or ""], config.prefix)


# botocore's call, the permission it needs, the code that means "there is none", and what to think of the answer
_QUESTIONS = (
    ("get_bucket_versioning", "s3:GetBucketVersioning", "", _versioning),
    ("get_bucket_encryption", "s3:GetEncryptionConfiguration", "ServerSideEncryptionConfigurationNotFoundError", _encryption),
    ("get_object_lock_configuration", "s3:GetBucketObjectLockConfiguration", "ObjectLockConfigurationNotFoundError", _lock),
    ("get_bucket_lifecycle_configuration", "s3:GetLifecycleConfiguration", "NoSuchLifecycleConfiguration", _lifecycle),
)
