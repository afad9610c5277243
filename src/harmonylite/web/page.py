"""The live page at `/` and the JSON that feeds it.

Invariant: the page is one file without a foreign address, allowed by a content security policy to run exactly the
script and style inside it; its data carries no secret, and the page writes it as text only.
"""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Route

from harmonylite.status import LATENCY_BOUNDS, Histogram, NodeStatus
from harmonylite.web.health import not_ready

if TYPE_CHECKING:
    from starlette.requests import Request


def page_routes(status: NodeStatus) -> list[Route]:
    """Return the routes ``/`` and ``/status.json`` over ``status``."""
    html = files("harmonylite.web").joinpath("page.html").read_text(encoding="utf-8")
    headers = {"content-security-policy": content_policy(html), "referrer-policy": "no-referrer"}

    async def page(_: Request) -> HTMLResponse:
        return HTMLResponse(html, headers=headers)

    async def data(_: Request) -> JSONResponse:
        return JSONResponse(page_data(status))

    return [Route("/", page), Route("/status.json", data)]


def page_data(status: NodeStatus) -> dict[str, Any]:
    """Return `NodeStatus.report` for a page: the database's name without its folder, no credentials, and latencies."""
    report = status.report()
    return report | {
        "db_path": PurePath(report["db_path"]).name,
        "nats_server": re.sub(r"//[^/@]*@", "//", report["nats_server"]),
        "not_ready": [] if status.ready else not_ready(report),
        "latency": {"count": sum(status.latency.counts)}
        | {name: quantile(status.latency, share) for name, share in (("p50", 0.5), ("p99", 0.99))},
    }


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
