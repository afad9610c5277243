"""Health, pages and metrics of several databases in one process.

Invariant: the process's own paths show the worst of its databases; each database has all that a process with one has,
below `/database/NAME`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harmonylite.status import NodeStatus
from harmonylite.web.endpoints import HealthEndpoint, MetricsEndpoint, servers

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute
    from starlette.types import ASGIApp, Receive, Scope, Send

    from harmonylite.web.page_source import PageSource
    from harmonylite.web.server import HttpServer

PATH = "/database/"


def page_path(name: str) -> str:
    """Return the path of a database's page."""
    return f"{PATH}{name}/"


@dataclass(slots=True)
class Site:
    """What is served of each database. ``apps``: health and page of those that are open."""

    statuses: dict[str, NodeStatus]
    apps: dict[str, ASGIApp] = field(default_factory=dict)

    def show(self, name: str, health: HealthEndpoint, source: PageSource) -> None:
        """Serve the page of ``name`` from now on."""
        from starlette.applications import Starlette

        self.apps[name] = Starlette(routes=health.routes(self.statuses[name], source))

    def listed(self) -> Sequence[dict[str, Any]]:
        """Return the databases, for the tabs of a page."""
        return [
            {"name": name, "healthy": each.healthy, "starting": each.starting, "ready": each.ready}
            for name, each in self.statuses.items()
        ]

    def app(self, name: str, health: HealthEndpoint) -> ASGIApp:
        """Return what answers for ``name``, also before it is open and while it is started again."""
        self.apps.setdefault(name, _closed(self.statuses[name], health))

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            await self.apps[name](scope, receive, send)

        return answer


def databases_servers(
    site: Site, *, health: HealthEndpoint | None, metrics: MetricsEndpoint | None
) -> list[HttpServer]:
    """Return the servers for what is enabled (None is not), not open yet."""

    def of_health() -> list[BaseRoute]:
        return _health_routes(site, health) if health is not None else []

    def of_metrics() -> list[BaseRoute]:
        from harmonylite.web.metrics import prefix_of, registry_of, scrape_routes

        assert metrics is not None
        collector = _collector(site.statuses, prefix_of(metrics.namespace, metrics.subsystem))
        return list(scrape_routes(registry_of(collector)))

    return servers(health, metrics, of_health, of_metrics)


def _closed(status: NodeStatus, health: HealthEndpoint) -> ASGIApp:
    from starlette.applications import Starlette

    return Starlette(routes=health.routes(status))


def _health_routes(site: Site, health: HealthEndpoint) -> list[BaseRoute]:
    from starlette.responses import JSONResponse, RedirectResponse
    from starlette.routing import Mount, Route

    from harmonylite.web.health import health_body, not_ready, plain_path

    def verdict(ready: str, reasons: list[str]) -> JSONResponse:
        return JSONResponse({"status": ready, "reasons": reasons}, 503 if reasons and ready != "alive" else 200)

    async def whole(_: Request) -> Response:
        healthy = all(each.healthy for each in site.statuses.values())
        starting = all(each.healthy or each.starting for each in site.statuses.values())
        bodies = {name: health_body(each, detailed=health.detailed) for name, each in site.statuses.items()}
        body = {"status": "healthy" if healthy else "starting" if starting else "unhealthy", "databases": bodies}
        return JSONResponse(body, 200 if healthy else 503)

    async def livez(_: Request) -> Response:
        return verdict("alive", [f"{name}: {why}" for name, each in site.statuses.items() for why in each.waits])

    async def readyz(_: Request) -> Response:
        reasons = [
            f"{name}: {why}"
            for name, each in site.statuses.items()
            if not each.ready
            for why in not_ready(each.report())
        ]
        return verdict("not ready" if reasons else "ready", reasons)

    async def first(_: Request) -> Response:
        return RedirectResponse(page_path(next(iter(site.statuses))).lstrip("/"))

    routes: list[BaseRoute] = [Route(plain_path(health.path), whole), Route("/livez", livez), Route("/readyz", readyz)]
    routes += [Route("/", first)] if health.detailed else []
    return routes + [Mount(page_path(name).rstrip("/"), app=site.app(name, health)) for name in site.statuses]


def _collector(statuses: dict[str, NodeStatus], prefix: str) -> Any:
    """Return a collector of every database's metrics, each sample with the label ``database``."""
    from prometheus_client.registry import Collector

    from harmonylite.web.metrics import NodeCollector

    class DatabasesCollector(Collector):
        """Of each name one family, as the format wants it."""

        def describe(self) -> list[Metric]:
            return []

        def collect(self) -> Iterator[Metric]:
            families: dict[str, Metric] = {}
            for number, (name, status) in enumerate(statuses.items()):
                for metric in NodeCollector(status, prefix).collect():
                    of_process = metric.name.startswith(f"{prefix}nats_server_")
                    if of_process and number:
                        continue  # there is one server: summed up over the databases it would be many
                    label = {} if of_process else {"database": name}
                    samples = [each._replace(labels={**label, **each.labels}) for each in metric.samples]
                    metric.samples = []
                    families.setdefault(metric.name, metric).samples += samples
            yield from families.values()

    return DatabasesCollector()
