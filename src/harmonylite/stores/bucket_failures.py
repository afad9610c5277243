"""Map obstore's long texts to a sentence, and to advice.

Invariant: no secret of the configuration is in a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_STATUS = re.compile(r"non-2xx status code: (\d{3}[^:\n]*)")
_CODE = re.compile(r"<Code>([^<]{1,100})</Code>")
_MESSAGE = re.compile(r"<Message>([^<]{1,500})</Message>")
_SYSTEM = re.compile(r'(?:message|error): "([^"]{1,200})"')
_TARGET = re.compile(r"Error performing \w+ \w+://([^/\s]+)")
_METADATA = ("/latest/api/token", "/latest/meta-data", "/v2/credentials", "/metadata/identity")


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do about a service's errors. ``section``: its part of the configuration, such as ``snapshot.s3``.

    ``codes``: by the service's own code; ``no_bucket``: those that say that the bucket itself is missing;
    ``credentials``: which keys or variables name some, where none were found.
    """

    section: str
    codes: Mapping[str, str]
    no_bucket: tuple[str, ...]
    credentials: str

    @property
    def unreachable(self) -> str:
        """What to check when the service does not answer."""
        return f"look at {self.section}.endpoint and use_ssl, and whether the service is up"


def explained(text: str, advice: Advice) -> tuple[str, str]:
    """Return why a request failed, from obstore's ``text``, and what to do, "" when nothing is known."""
    brief, _, debug = text.partition("\n\nDebug source:")
    if any(path in brief for path in _METADATA):
        why = "no credentials were found: neither in the configuration, nor in the environment, nor from a role of this"
        return f"{why} machine", advice.credentials
    if status := _STATUS.search(brief):
        code, message = _CODE.search(brief), _MESSAGE.search(brief)
        words = ": ".join(" ".join(found[1].split()) for found in (code, message) if found)
        what = advice.codes.get(code[1], "") if code else ""
        return f"the service answers {status[1].strip()}{f' ({words})' if words else ''}", what
    target = _TARGET.search(brief)
    at = f"{target[1]}: " if target else ""
    if system := _SYSTEM.search(debug):
        return f"{at}{system[1]}", advice.unreachable
    if "InvalidContentType" in debug:
        return f"{at}the service doesn't speak TLS", f"set {advice.section}.use_ssl = false if the network is your own"
    if "UnknownIssuer" in debug or "invalid peer certificate" in debug:
        what = f"name the authority's file in {advice.section}.ca_file"
        return f"{at}its certificate is signed by no authority known here", what
    if "TimedOut" in debug or "Timeout" in debug:
        return f"{at}no answer in time", advice.unreachable
    return brief.splitlines()[0] if brief else "no reason was given", advice.unreachable
