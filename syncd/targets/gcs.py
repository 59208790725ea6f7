"""Google Cloud Storage as Target.

Credentials are google-auth's: a service-account file, else the application default (workload identity, metadata server, gcloud's login).
Refuses nothing that `objects` does not refuse. With an `endpoint` and no account nothing is signed: that is for stand-ins in tests.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from obstore.store import GCSStore

from syncd.clock import Clock
from syncd.targets.objects import ObjectConfig, ObjectTarget, Vendor

if TYPE_CHECKING:
    from obstore.store import GCSConfig, GCSCredential

_SCOPES = ("https://www.googleapis.com/auth/devstorage.read_write",)
_HINT = "Check the account this target runs as, and that it may get, create, delete and list objects (role Storage Object User)"


class Config(ObjectConfig):
    """A bucket of Google Cloud Storage."""

    type: Literal["gcs"]
    service_account_file: Path | None = None
    """Default: application default credentials."""
    endpoint: str | None = None
    """Another URL than Google's, for tests; without `service_account_file` nothing is signed there."""


def open(config: Config, clock: Clock) -> ObjectTarget:  # noqa: A001 - every edge is opened by `open`
    """The Target; asks nobody anything yet. Raises TargetError when it can't be made of this config and environment."""
    token = _nobody if config.endpoint and not config.service_account_file else _provider(config.service_account_file)
    settings: GCSConfig = {"base_url": config.endpoint} if config.endpoint else {}
    make = partial(GCSStore, config=settings, credential_provider=token)
    return ObjectTarget(Vendor("gs", _HINT, bulk_delete=False, make=make), config, clock)


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
