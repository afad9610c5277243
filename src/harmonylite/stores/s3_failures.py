"""What obstore's long texts mean, in a sentence, and what to do about it.

Invariant: no secret of the configuration is in a sentence.
"""

from __future__ import annotations

import re

_STATUS = re.compile(r"non-2xx status code: (\d{3}[^:\n]*)")
_CODE = re.compile(r"<Code>([^<]{1,100})</Code>")
_MESSAGE = re.compile(r"<Message>([^<]{1,500})</Message>")
_SYSTEM = re.compile(r'(?:message|error): "([^"]{1,200})"')
_TARGET = re.compile(r"Error performing \w+ \w+://([^/\s]+)")

_ADVICE = {
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
}
_UNREACHABLE = "look at snapshot.s3.endpoint and use_ssl, and whether the service is up"
_NO_CREDENTIALS = (
    "no credentials were found: neither in the configuration, nor in the environment, nor from a role of this machine",
    "set snapshot.s3.access_key and secret, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
)


def explained(text: str) -> tuple[str, str]:
    """Return why a request failed, from obstore's ``text``, and what to do, "" when nothing is known."""
    brief, _, debug = text.partition("\n\nDebug source:")
    if "/latest/api/token" in brief or "/latest/meta-data" in brief or "/v2/credentials" in brief:
        return _NO_CREDENTIALS
    if status := _STATUS.search(brief):
        code, message = _CODE.search(brief), _MESSAGE.search(brief)
        told = ": ".join(found[1] for found in (code, message) if found)
        advice = _ADVICE.get(code[1], "") if code else ""
        return f"the service answers {status[1].strip()}{f' ({told})' if told else ''}", advice
    target = _TARGET.search(brief)
    at = f"{target[1]}: " if target else ""
    if system := _SYSTEM.search(debug):
        return f"{at}{system[1]}", _UNREACHABLE
    if "InvalidContentType" in debug:
        return f"{at}the service doesn't speak TLS", "set snapshot.s3.use_ssl = false if the network is your own"
    if "UnknownIssuer" in debug or "invalid peer certificate" in debug:
        return f"{at}its certificate is signed by nobody known here", "name the authority's file in snapshot.s3.ca_file"
    if "TimedOut" in debug or "Timeout" in debug:
        return f"{at}no answer in time", _UNREACHABLE
    return brief.splitlines()[0] if brief else "no reason was given", _UNREACHABLE
