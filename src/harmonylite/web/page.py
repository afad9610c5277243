"""The live page at `/` and the JSON that feeds it.

Invariant: the page is one file without a foreign address, allowed by a content security policy to run exactly the
script and style inside it; its data carries no secret, and the page writes it as text only.
"""

from __future__ import annotations

import base64
import hashlib
import re
import time
from importlib.resources import files
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from starlette.responses import HTMLResponse
from starlette.routing import Route

from harmonylite.histogram import LATENCY_BOUNDS, Histogram
from harmonylite.status import NodeStatus
from harmonylite.web.health import not_ready
from harmonylite.web.page_guard import PageGuard
from harmonylite.web.page_routes import guarded, page_data_routes
from harmonylite.web.page_source import PageSource

if TYPE_CHECKING:
    from starlette.requests import Request

SCRIPTS = ("elements.js", "words.js", "plots.js", "cluster.js", "conflicts.js", "tails.js", "page.js")
"""The parts of the page's one script, in their order."""
LEAST = 1.0
"""Seconds that rows are pending before the page says for how long."""


def page_routes(status: NodeStatus, source: PageSource | None = None) -> list[Route]:
    """Return the routes ``/`` and ``/status.json`` over ``status``, and all others that the page asks, over ``source``.

    ``source`` None: the page shows what the status says and nothing else.
    """
    html = page_html()
    headers = {"content-security-policy": content_policy(html), "referrer-policy": "no-referrer"}

    async def page(_: Request) -> HTMLResponse:
        return HTMLResponse(html, headers=headers)

    async def data(_: Request) -> dict[str, Any]:
        return page_data(status, source)

    guard = source.guard if source is not None else PageGuard()
    routes = [Route("/", page), Route("/status.json", guarded(guard, data, "state"), methods=["GET"])]
    return routes + (page_data_routes(source) if source is not None else [])


def page_html() -> str:
    """Return the page, put together from its parts."""
    folder = files("harmonylite.web").joinpath("page_parts")

    def text(name: str) -> str:
        return folder.joinpath(name).read_text(encoding="utf-8")

    script = "".join(text(name) for name in SCRIPTS)
    filled = text("page.html").replace("<style></style>", f"<style>\n{text('page.css')}</style>")
    return filled.replace("<script></script>", f'<script>\n"use strict";\n{script}</script>')


def page_data(status: NodeStatus, source: PageSource | None = None) -> dict[str, Any]:
    """Return `NodeStatus.report` for a page: the database's name without its folder, no credentials, and latencies."""
    report = status.report()
    since = source.hour.pending_since if source is not None else 0.0
    waited = time.monotonic() - since if since else 0.0
    return report | {
        "db_path": PurePath(report["db_path"]).name,
        "nats_server": re.sub(r"//[^/@]*@", "//", report["nats_server"]),
        "not_ready": [] if status.ready else not_ready(report),
        "trouble": trouble(status, report),
        "pending_seconds": round(waited, 1) if waited >= LEAST else 0.0,
        "verified": list(status.verified),
        "details": source is not None,
        "database": source.name if source is not None else "",
        "databases": list(source.databases()) if source is not None else [],
        "acts": source is not None and bool(source.guard.token),
        "latency": {"count": sum(status.latency.counts)}
        | {name: quantile(status.latency, share) for name, share in (("p50", 0.5), ("p99", 0.99))},
    }


def trouble(status: NodeStatus, report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return each cause of trouble once: ``part``, ``why``, ``failed``, ``seconds``, and the parts that wait only
    ``because`` of it.
    """
    stuck = [part for _, part in sorted(status.parts.items()) if part.stuck]
    found = [
        {
            "part": part.name,
            "why": part.reason,
            "failed": part.state == "failed",
            "seconds": round(time.monotonic() - part.since, 1),
            "because": [other.name for other in stuck if other is not part and status.cause(other) is part],
        }
        for part in stuck
        if status.cause(part) is part
    ]
    if status.ready:
        return found
    shown = {*status.waits, *(["NATS is not connected"] if any(each["part"] == "nats" for each in found) else [])}
    rest = [why for why in not_ready(report) if why not in shown]
    return found + [{"part": "", "why": why, "failed": False, "seconds": 0.0, "because": []} for why in rest]


def quantile(histogram: Histogram, share: float) -> float | None:
    """Return the bound in seconds below which ``share`` of the observations lie; None without any, or above all."""
    wanted, seen = share * sum(histogram.counts), 0
    for bound, count in zip(LATENCY_BOUNDS, histogram.counts, strict=False):
        seen += count
        if seen and seen >= wanted:
            return bound
    return None


def content_policy(html: str) -> str:
    """Return the policy that allows ``html`` its own inline script and style, its own data, and nothing else."""

    def hashes(tag: str) -> str:
        found = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(t.encode()).digest()).decode()}'" for t in found)

    return (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
