"""The control API's endpoints: read the arguments, ask `Actions`, answer in JSON.

Invariant: arguments are checked before any request reaches the node, and every failure becomes ``{"error": text}`` with
the exit code that the command line should end with.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any, cast

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from harmonylite.errors import (
    DatabaseBusyError,
    ForeignError,
    HarmonyLiteError,
    NotRunningError,
    StreamError,
    WaitTimeoutError,
)
from harmonylite.foreign import Codec, Untyped
from harmonylite.web.actions import Actions
from harmonylite.web.values import conflict_json

log = logging.getLogger(__name__)

MAX_BODY = 65536
"""Bytes of a request's body; arguments need a hundred."""

MAX_CONFLICTS = 100_000
"""Entries of the journal in one answer."""

MAX_SECONDS = 3600.0
"""Longest time that a verify may be given."""

PASSING = (StreamError, DatabaseBusyError, NotRunningError, WaitTimeoutError)
"""Errors that a retry may resolve: 503; the others are 409."""


class _Arguments(msgspec.Struct):
    """Each endpoint checks its own."""


ARGUMENTS = Untyped("the body", check=_Arguments, most=MAX_BODY)
ARGUMENT: Codec[Any] = Codec("an argument", cast("type[Any]", Any), most=MAX_BODY)

Endpoint = Callable[[Request], Awaitable[dict[str, Any] | Response]]


class BadArgumentError(Exception):
    """The request's arguments can't be used: 400."""


def control_routes(actions: Actions) -> list[Route]:
    """Return the routes ``/v1/...`` over ``actions``."""
    return [*_control(actions), *_orders(actions)]


def _control(actions: Actions) -> list[Route]:
    """Return the routes that read."""

    async def status(_: Request) -> dict[str, Any]:
        return await actions.status()

    async def cluster(_: Request) -> dict[str, Any]:
        return {"nodes": list(await actions.cluster())}

    async def nodes(_: Request) -> dict[str, Any]:
        return {"nodes": list(await actions.nodes())}

    async def conflicts(request: Request) -> dict[str, Any]:
        limit = whole("limit", parsed(request.query_params.get("limit", "100")), 1, MAX_CONFLICTS)
        found = await actions.conflicts(request.query_params.get("table") or None, limit)
        return {"conflicts": [conflict_json(conflict) for conflict in found]}

    async def left_out(_: Request) -> dict[str, Any]:
        return {"left_out": list(await actions.left_out())}

    return [
        Route("/v1/status", answering(status), methods=["GET"]),
        Route("/v1/cluster", answering(cluster), methods=["GET"]),
        Route("/v1/nodes", answering(nodes), methods=["GET"]),
        Route("/v1/conflicts", answering(conflicts), methods=["GET"]),
        Route("/v1/skip/list", answering(left_out), methods=["GET"]),
    ]


def _orders(actions: Actions) -> list[Route]:
    """Return the routes that make the node act."""

    async def forget(request: Request) -> dict[str, Any]:
        given = await arguments(request, {"node": ""})
        if not isinstance(given["node"], str) or not given["node"]:
            raise BadArgumentError("node is not the name of a node")
        return await actions.forget(given["node"])

    async def verify(request: Request) -> dict[str, Any]:
        given = await arguments(request, {"repair": False, "seconds": 30.0, "without": []})
        without = _names("without", given["without"])
        return await actions.verify(_flag("repair", given["repair"]), seconds(given["seconds"]), without)

    async def snapshot(request: Request) -> dict[str, Any]:
        await arguments(request, {})
        return await actions.save_snapshot()

    async def skip(request: Request) -> dict[str, Any]:
        given = await arguments(request, {"shard": None, "seq": None})
        shard, seq = whole("shard", given["shard"], 0), whole("seq", given["seq"], 1)
        return await actions.skip(shard, seq)

    async def undo_skip(request: Request) -> dict[str, Any]:
        given = await arguments(request, {"shard": None, "seq": None})
        shard, seq = whole("shard", given["shard"], 0), whole("seq", given["seq"], 1)
        return await actions.undo_skip(shard, seq)

    async def region(request: Request) -> dict[str, Any]:
        given = await arguments(request, {"action": "", "force": False})
        if given["action"] not in ("promote", "rejoin"):
            raise BadArgumentError("action is not promote or rejoin")
        return await actions.region(given["action"], _flag("force", given["force"]))

    return [
        Route("/v1/forget", answering(forget), methods=["POST"]),
        Route("/v1/verify", answering(verify), methods=["POST"]),
        Route("/v1/snapshot", answering(snapshot), methods=["POST"]),
        Route("/v1/skip", answering(skip), methods=["POST"]),
        Route("/v1/skip/undo", answering(undo_skip), methods=["POST"]),
        Route("/v1/region", answering(region), methods=["POST"]),
    ]


async def not_found(_: Request, error: Exception) -> Response:
    """Answer an unknown path or method as JSON, like every other error."""
    code = getattr(error, "status_code", 404)
    text = "this method is not for this path" if code == 405 else "no such path"
    return JSONResponse({"error": text}, code, getattr(error, "headers", None))


def answering(endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    """Return ``endpoint`` with its result, or its error, as an answer in JSON."""

    async def answer(request: Request) -> Response:
        try:
            found = await endpoint(request)
        except BadArgumentError as error:
            return _failed(400, str(error), 2)
        except HarmonyLiteError as error:
            return failure(error)
        except Exception:  # the API's edge: the caller gets a sentence, the log the traceback
            log.exception("failed: %(method)s %(path)s", {"method": request.method, "path": request.url.path})
            return _failed(500, "the node failed at this; its log says why", 1)
        return found if isinstance(found, Response) else JSONResponse(found)

    return answer


def failure(error: HarmonyLiteError) -> JSONResponse:
    """Return the answer for an error."""
    return _failed(503 if isinstance(error, PASSING) else 409, str(error), error.exit_code)


def _failed(code: int, text: str, exit_code: int) -> JSONResponse:
    return JSONResponse({"error": text, "exit_code": exit_code}, code)


async def arguments(request: Request, defaults: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments in a request's body over ``defaults``; raises BadArgumentError."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY:
            raise BadArgumentError(f"the body is longer than {MAX_BODY} bytes")
    try:
        given = ARGUMENTS.decode(bytes(body)) if body.strip() else {}
    except ForeignError as error:
        raise BadArgumentError(error.message) from error
    if unknown := sorted(given.keys() - defaults.keys()):
        raise BadArgumentError(f"unknown argument {unknown[0]!r}")
    return defaults | given


def parsed(text: str) -> Any:
    """Return what a JSON text says; raises BadArgumentError."""
    try:
        return ARGUMENT.decode(text.encode(errors="replace"))
    except ForeignError as error:
        raise BadArgumentError(error.message) from error


def whole(name: str, value: Any, least: int, most: int = 2**63 - 1) -> int:
    """Return ``value``, a whole number within its limits; raises BadArgumentError."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise BadArgumentError(f"{name} is not a whole number of {least} to {most}")
    return value


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadArgumentError(f"{name} is not true or false")
    return value


def _names(name: str, value: object) -> frozenset[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise BadArgumentError(f"{name} is not a list of names")
    return frozenset(value)


def seconds(value: Any) -> float:
    """Return ``value``, a time in seconds within its limits; raises BadArgumentError."""
    number = math.nan if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
    if not 0 < number <= MAX_SECONDS:
        raise BadArgumentError(f"seconds is not a number above 0 and up to {MAX_SECONDS:.0f}")
    return number
