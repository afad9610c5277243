"""The control API's endpoints about the schema: what it is here and elsewhere, what waits, and who changed it.

Invariant: a request that changes a schema is answered once the change was made, or with why it was not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from starlette.requests import Request
from starlette.routing import Route

from harmonylite.web.control_routes import BadArgumentError, answering, arguments, parsed, whole

MOST_CHANGES = 100_000
"""Schema changes in one answer."""


class SchemaActions(Protocol):
    """The requests about its schema to a node; `harmonylite.node.schemas` answers. May raise `HarmonyLiteError`."""

    async def schema(self) -> dict[str, Any]:
        """Return this node's schema."""

    async def cluster(self) -> Sequence[dict[str, Any]]:
        """Return every node's schema."""

    async def objects(self, node: str) -> dict[str, Any]:
        """Return the definitions on this node and on ``node``."""

    async def accept(self) -> dict[str, Any]:
        """Apply what waits."""

    async def changes(self, limit: int) -> dict[str, Any]:
        """Return the newest ``limit`` schema changes in the streams."""


def schema_routes(schemas: SchemaActions) -> list[Route]:
    """Return the routes over ``schemas``."""

    async def schema(_: Request) -> dict[str, Any]:
        return await schemas.schema()

    async def cluster(_: Request) -> dict[str, Any]:
        return {"nodes": list(await schemas.cluster())}

    async def objects(request: Request) -> dict[str, Any]:
        if not (node := request.query_params.get("node", "")):
            raise BadArgumentError("node is not the name of a node")
        return await schemas.objects(node)

    async def accept(request: Request) -> dict[str, Any]:
        await arguments(request, {})
        return await schemas.accept()

    async def changes(request: Request) -> dict[str, Any]:
        return await schemas.changes(whole("limit", parsed(request.query_params.get("limit", "100")), 1, MOST_CHANGES))

    return [
        Route("/v1/schema", answering(schema), methods=["GET"]),
        Route("/v1/schema/cluster", answering(cluster), methods=["GET"]),
        Route("/v1/schema/objects", answering(objects), methods=["GET"]),
        Route("/v1/schema/accept", answering(accept), methods=["POST"]),
        Route("/v1/schema/changes", answering(changes), methods=["GET"]),
    ]
