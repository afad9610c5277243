"""Snapshots in an S3 bucket, Amazon's or any compatible service's.

Invariant: what the configuration says wins over the environment, key by key and never in a mixture of two identities.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from obstore.store import S3Store as Bucket

from harmonylite.config.snapshot import S3StoreSettings
from harmonylite.stores.bucket import BucketStore, client_options, retries
from harmonylite.stores.bucket_failures import Advice
from harmonylite.stores.failures import Failures

if TYPE_CHECKING:
    from obstore.store import S3Config, S3Credential

ADVICE = Advice(
    "snapshot.s3",
    {
        "NoSuchBucket": "make the bucket, or correct snapshot.s3.bucket; it is never made by itself",
        "InvalidAccessKeyId": "correct snapshot.s3.access_key",
        "SignatureDoesNotMatch": "correct snapshot.s3.secret, and access_key with it",
        "InvalidToken": "correct snapshot.s3.session_token",
        "ExpiredToken": "give a new snapshot.s3.session_token",
        "RequestTimeTooSkewed": "set this machine's clock",
        "AccessDenied": "let these credentials list, read, write and delete below snapshot.s3.path",
        "PermanentRedirect": "set snapshot.s3.region to the bucket's region",
        "AuthorizationHeaderMalformed": "set snapshot.s3.region to the bucket's region",
        "QuotaExceeded": "raise the quota, or let fewer snapshots stay (snapshot.keep)",
        "XMinioStorageFull": "make room there, or let fewer snapshots stay (snapshot.keep)",
        "SlowDown": "it is tried again later",
    },
    no_bucket=("NoSuchBucket",),
    credentials="set snapshot.s3.access_key and secret, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
)

_AMAZON = re.compile(
    r"(?P<service>s3)[.-](?:(?:dualstack|fips)\.)?(?:(?P<region>[a-z]{2}(?:-[a-z]+)+-\d)\.)?amazonaws\."
)
# What minio-go, and with it the known system, reads from the environment.
_MINIO = (("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"), ("MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"))


class S3Store(BucketStore):
    """Objects in a bucket, below ``path``; nothing is connected to yet. Raises ConfigError."""

    def __init__(self, settings: S3StoreSettings) -> None:
        config: S3Config = {
            "disable_bulk_delete": True,  # a plain DELETE needs only the plainest right and feature
            **where(settings),
            **who(settings),
        }
        bucket = Bucket(
            settings.bucket,
            prefix=settings.path or None,
            config=config,
            client_options=client_options(plain=not settings.use_ssl, ca_file=settings.ca_file, what="snapshot.s3"),
            retry_config=retries(),
            credential_provider=_provider(settings),
        )
        super().__init__(bucket, Failures(f"the S3 bucket {settings.bucket!r}", secrets_of(settings)), ADVICE)


def where(settings: S3StoreSettings) -> S3Config:
    """Return address, form of address and region.

    Amazon's buckets are hosts of their own, as Amazon wants it, unless the name has a dot (no certificate fits then).
    Everywhere else buckets are folders, as MinIO wants it; an endpoint that begins with the bucket's name names the
    bucket.
    """
    config: S3Config = {}
    host, name = settings.endpoint, settings.bucket
    amazon = _AMAZON.match(host)
    if settings.region:
        config["region"] = settings.region
    elif amazon and amazon["region"]:
        config["region"] = amazon["region"]
    own_host = not settings.path_style and "." not in name and (not host or amazon is not None)
    if host.startswith(f"{name}."):
        own_host = True
    elif own_host and host:
        host = f"{name}.{host}"
    config["virtual_hosted_style_request"] = own_host
    if host:
        # The second one too, for AWS_ENDPOINT_URL_S3 in the environment would win over the first.
        url = f"{'https' if settings.use_ssl else 'http'}://{host}"
        config["endpoint"] = config["aws_endpoint_url_s3"] = url
    return config


def who(settings: S3StoreSettings) -> S3Config:
    """Return the keys: the configuration's, else MinIO's from the environment; {} = obstore looks (AWS_…, a role)."""
    key, secret = _keys(settings)
    config: S3Config = {}
    if key:
        config["access_key_id"], config["secret_access_key"] = key, secret
        if token := settings.session_token.get_secret_value():
            config["session_token"] = token
    return config


def secrets_of(settings: S3StoreSettings) -> list[str]:
    """Return every secret that may occur in the service's answers."""
    found = [settings.secret.get_secret_value(), settings.session_token.get_secret_value(), _keys(settings)[1]]
    return [*found, os.environ.get("AWS_SECRET_ACCESS_KEY", ""), os.environ.get("AWS_SESSION_TOKEN", "")]


def _keys(settings: S3StoreSettings) -> tuple[str, str]:
    if settings.access_key:
        return settings.access_key, settings.secret.get_secret_value()
    if not os.environ.get("AWS_ACCESS_KEY_ID"):
        for user, password in _MINIO:
            if os.environ.get(user) and os.environ.get(password):
                return os.environ[user], os.environ[password]
    return "", ""


class _Keys:
    """Hands out keys without a session token, whatever AWS_SESSION_TOKEN says: that one belongs to other keys."""

    def __init__(self, key: str, secret: str) -> None:
        self._key = key
        self._secret = secret

    def __call__(self) -> S3Credential:
        return {"access_key_id": self._key, "secret_access_key": self._secret, "token": None, "expires_at": None}


def _provider(settings: S3StoreSettings) -> _Keys | None:
    key, secret = _keys(settings)
    token = settings.session_token.get_secret_value()
    return _Keys(key, secret) if key and not token and os.environ.get("AWS_SESSION_TOKEN") else None
