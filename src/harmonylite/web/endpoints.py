"""Which HTTP servers a node runs: one for health and the page, one for metrics, or one for both.

Invariant: the same ``bind`` in both sections is one server, not an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harmonylite.status import NodeStatus
from harmonylite.web.address import parse_address
from harmonylite.web.server import HttpServer

if TYPE_CHECKING:
    from starlette.routing import BaseRoute, Route
    from starlette.types import ASGIApp

    from harmonylite.web.page_source import PageSource

HEALTH_KEY = "health_check.bind"
METRICS_KEY = "prometheus.bind"


@dataclass(frozen=True, slots=True)
class HealthEndpoint:
    """The ``[health_check]`` section. ``detailed``: also show lag, pending and reasons, and show the page at ``/``.

    ``hosts``: names that the server answers for beside those of this machine.
    """

    bind: str
    path: str = "/health"
    detailed: bool = True
    hosts: tuple[str, ...] = ()

    def routes(self, status: NodeStatus, source: PageSource | None = None) -> list[Route]:
        """Return the routes of health and, when ``detailed``, of the page, over ``source``."""
        from harmonylite.web.health import health_routes
        from harmonylite.web.page import page_routes

        routes = health_routes(status, path=self.path, detailed=self.detailed)
        return routes + (page_routes(status, source) if self.detailed else [])


@dataclass(frozen=True, slots=True)
class MetricsEndpoint:
    """The ``[prometheus]`` section; ``hosts`` as for `HealthEndpoint`."""

    bind: str
    namespace: str = "harmonylite"
    subsystem: str = ""
    hosts: tuple[str, ...] = ()

    def routes(self, status: NodeStatus) -> list[Route]:
        """Return the routes of the metrics."""
        from harmonylite.web.metrics import metrics_routes

        return metrics_routes(status, namespace=self.namespace, subsystem=self.subsystem)


def http_servers(
    status: NodeStatus,
    *,
    health: HealthEndpoint | None = None,
    metrics: MetricsEndpoint | None = None,
    source: PageSource | None = None,
) -> list[HttpServer]:
    """Return the servers for what is enabled (None is not), not open yet. ``source``: what the page asks.

    :raises ConfigError: a ``bind`` is not ``host:port``.
    """

    def of_health() -> Sequence[BaseRoute]:
        return health.routes(status, source) if health else []

    def of_metrics() -> Sequence[BaseRoute]:
        return metrics.routes(status) if metrics else []

    return servers(health, metrics, of_health, of_metrics)


Routes = Callable[[], "Sequence[BaseRoute]"]


def servers(
    health: HealthEndpoint | None, metrics: MetricsEndpoint | None, of_health: Routes, of_metrics: Routes
) -> list[HttpServer]:
    """Return the servers for what is enabled, not open yet; ``of_health``, ``of_metrics``: make their routes."""
    if health and metrics and _same(health.bind, metrics.bind):
        app, hosts = _app(of_health, of_metrics), {*health.hosts, *metrics.hosts}
        return [HttpServer(app, health.bind, key=HEALTH_KEY, hosts=hosts)]
    found = []
    if health:
        found.append(HttpServer(_app(of_health), health.bind, key=HEALTH_KEY, hosts=health.hosts))
    if metrics:
        found.append(HttpServer(_app(of_metrics), metrics.bind, key=METRICS_KEY, hosts=metrics.hosts))
    return found


def _same(health: str, metrics: str) -> bool:
    address = parse_address(health, key=HEALTH_KEY)
    return address == parse_address(metrics, key=METRICS_KEY) and address.port != 0


def _app(*routes: Routes) -> Callable[[], ASGIApp]:
    def make() -> ASGIApp:
        from starlette.applications import Starlette

        return Starlette(routes=[route for some in routes for route in some()])

    return make
