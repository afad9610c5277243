"""Middleware under real frameworks: what was written through one node is read through another that lags.

The examples are those of docs/read-your-writes.md. Applications use the one SQLite library of this process.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import lru_cache
from http.cookies import SimpleCookie
from pathlib import Path
from types import ModuleType
from typing import Any

import apsw
import httpx
import pytest

from harmonylite.asgi import AsgiReadYourWrites
from harmonylite.client import Client
from harmonylite.position_cookie import LONGEST, NAME, cookie, position_in
from harmonylite.wsgi import WsgiReadYourWrites
from tests.parts.fix_nats import PATIENCE, RealNats
from tests.parts.replication.fix_nodes import Running, items, write

PAGE = Path(__file__).parents[3] / "docs" / "read-your-writes.md"
FASTAPI, FLASK, DJANGO_WSGI, DJANGO_ASGI = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)

Answer = tuple[str, str]
"""Text, and the Set-Cookie header."""
Ask = Callable[[str, str], Answer]
"""Method and Cookie header."""


def example(text: str, database: Path, **names: Any) -> dict[str, Any]:
    """Run an example of the page for ``database``, with the patience of a test."""
    text = text.replace('db_path="/data/app.db"', f"db_path={str(database)!r}, seconds={PATIENCE}")
    exec(text, names)  # noqa: S102  # the page is ours
    return names


def add(database: Path) -> str:
    write(database, "INSERT INTO item VALUES('new')")
    return "added"


def asked_by_httpx(app: Any) -> Ask:
    async def asked(method: str, sent: str) -> Answer:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            answer = await client.request(method, "/", headers={"Cookie": sent} if sent else {})
            return answer.text, answer.headers.get("set-cookie", "")

    return lambda method, sent: asyncio.run(asked(method, sent))


def asked_by_werkzeug(app: Any) -> Ask:
    from werkzeug.test import Client as Werkzeug

    def ask(method: str, sent: str) -> Answer:
        answer = Werkzeug(app, use_cookies=False).open("/", method=method, headers={"Cookie": sent} if sent else {})
        return answer.get_data(as_text=True), answer.headers.get("Set-Cookie", "")

    return ask


def fastapi(database: Path) -> Ask:
    from fastapi import FastAPI
    from fastapi.responses import PlainTextResponse

    app = FastAPI()
    app.get("/", response_class=PlainTextResponse)(lambda: " ".join(items(database)))
    app.post("/", response_class=PlainTextResponse)(lambda: add(database))
    example(FASTAPI, database, app=app)
    return asked_by_httpx(app)


def flask(database: Path) -> Ask:
    from flask import Flask

    app = Flask(__name__)
    app.get("/")(lambda: " ".join(items(database)))
    app.post("/", endpoint="add")(lambda: add(database))
    example(FLASK, database, app=app)
    return asked_by_werkzeug(app)


@lru_cache
def django_views() -> ModuleType:
    """Set Django up for this process; which database a request is for stands in its path's host."""
    import django
    from django.conf import settings
    from django.http import HttpRequest, HttpResponse
    from django.urls import path

    def view(request: HttpRequest) -> HttpResponse:
        database = Path(request.META["SERVED_FROM"])
        return HttpResponse(add(database) if request.method == "POST" else " ".join(items(database)))

    urls = ModuleType("urls")
    urls.urlpatterns = [path("", view)]  # type: ignore[attr-defined]
    settings.configure(ROOT_URLCONF=urls, ALLOWED_HOSTS=["*"], SECRET_KEY="test", USE_TZ=True)
    django.setup()
    return urls


def django_wsgi(database: Path) -> Ask:
    django_views()
    app = example(DJANGO_WSGI, database)["application"]
    return asked_by_werkzeug(lambda environ, start: app({**environ, "SERVED_FROM": str(database)}, start))


def django_asgi(database: Path) -> Ask:
    from django.core.handlers.asgi import ASGIRequest

    django_views()
    app = example(DJANGO_ASGI, database)["application"]

    async def served(scope: Any, receive: Any, send: Any) -> None:
        class Request(ASGIRequest):  # type: ignore[misc]  # Django has no types
            def __init__(self, *given: Any) -> None:
                super().__init__(*given)
                self.META["SERVED_FROM"] = str(database)

        app._app.request_class = Request
        await app(scope, receive, send)

    return asked_by_httpx(served)


@contextmanager
def nothing_merged(database: Path) -> Iterator[None]:
    """Keep the write lock, as a long transaction of the application does."""
    with closing(apsw.Connection(str(database))) as connection:
        connection.set_busy_timeout(10_000)
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


@pytest.fixture
async def sides(nats: RealNats, tmp_path: Path) -> AsyncIterator[tuple[Running, Running]]:
    here, there = (Running(tmp_path, name, nats.url) for name in ("here", "there"))
    await here.start()
    await there.start()
    yield here, there
    await here.stop()
    await there.stop()


@pytest.mark.parametrize("framework", [fastapi, flask, django_wsgi, django_asgi])
async def test_what_one_node_took_the_other_shows(
    sides: tuple[Running, Running], framework: Callable[[Path], Ask]
) -> None:
    here, there = sides
    with nothing_merged(there.database):
        text, told = await asyncio.to_thread(framework(here.database), "POST", "")
        assert text == "added"
        jar = SimpleCookie(told)
        assert jar[NAME]["httponly"]
        sent = f"other=1; {NAME}={jar[NAME].coded_value}"
        ask = framework(there.database)
        assert await asyncio.to_thread(ask, "GET", "") == ("", "")  # the other node lags
        reading = asyncio.create_task(asyncio.to_thread(ask, "GET", sent))
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(reading), 1.0)
        assert not reading.done()
    assert await reading == ("new", "")


@pytest.mark.parametrize("framework", [fastapi, flask])
@pytest.mark.parametrize("sent", [f"{NAME}=nonsense", f"{NAME}=0%3A1%40ffffffff", f"{NAME}=0%3A1%0d%0aX", f"{NAME}="])
async def test_a_cookie_that_is_made_up_is_left_out(
    sides: tuple[Running, Running], framework: Callable[[Path], Ask], sent: str
) -> None:
    assert await asyncio.to_thread(framework(sides[0].database), "GET", sent) == ("", "")


@pytest.mark.parametrize("kind", [AsgiReadYourWrites, WsgiReadYourWrites])
def test_without_a_node_requests_are_served_and_the_log_says_so_once(
    tmp_path: Path, kind: type, caplog: pytest.LogCaptureFixture
) -> None:
    database = tmp_path / "app.db"
    write(database, "CREATE TABLE item(id TEXT PRIMARY KEY)")
    ask = (fastapi if kind is AsgiReadYourWrites else flask)(database)
    assert [ask("POST", f"{NAME}=0%3A1"), ask("GET", f"{NAME}=0%3A1")] == [("added", ""), ("new", "")]
    said = [record.message for record in caplog.records if record.name == "harmonylite"]
    assert len(said) == 1
    assert "no running node" in said[0]


async def test_the_view_says_which_position_the_rows_are_at(sides: tuple[Running, Running]) -> None:
    here, there = sides
    write(here.database, "INSERT INTO item VALUES('one')")
    position = await asyncio.to_thread(Client(here.database).position, seconds=PATIENCE)
    await asyncio.to_thread(Client(there.database).wait, position, seconds=PATIENCE)
    with closing(apsw.Connection(str(there.database))) as connection, connection:
        ((seen,),) = connection.execute("SELECT position FROM __harmonylite__status").fetchall()
        assert connection.execute("SELECT id FROM item").fetchall() == [("one",)]
    assert seen == position.partition("@")[0]
    await asyncio.to_thread(Client(here.database).wait, seen, seconds=PATIENCE)


async def test_the_view_is_in_nobodys_way(sides: tuple[Running, Running]) -> None:
    write(
        sides[0].database,
        "PRAGMA trusted_schema = OFF; SELECT * FROM __harmonylite__status",
        "ALTER TABLE item RENAME TO thing",
        "ALTER TABLE thing RENAME COLUMN id TO name",
    )


@pytest.mark.parametrize("position", ["0:12@1f0c2d3e", "0:1,1:2/2/1%2Fs%2Fn", "é;=,"])
def test_a_position_comes_back_from_its_cookie(position: str) -> None:
    made = cookie(position, secure=True)
    assert made is not None
    assert made.endswith("; Secure")
    assert position_in(f"a=b; {made.partition(';')[0]}; c=d") == position


def test_a_position_too_long_for_a_cookie_has_none() -> None:
    assert cookie("1" * (LONGEST + 1), secure=False) is None
    assert position_in(f"{NAME}={'1' * (LONGEST + 1)}") == ""
