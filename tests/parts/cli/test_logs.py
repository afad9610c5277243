"""The log: one pipeline for all, no secrets, no local variables."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from harmonylite.config import LoggingSettings
from harmonylite.logs import TAIL_LINES, LogTail, configure, redact

SECRET = "hunter2hunter2"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)


def logged(form: str, *, verbose: bool = False, known: tuple[str, ...] = (SECRET,)) -> io.StringIO:
    """Return the stream that a new pipeline writes to."""
    stream = io.StringIO()
    section = LoggingSettings.read({"format": form, "verbose": verbose})
    configure(section, known_secrets=known, stream=stream)
    return stream


def fail_with_a_secret_in_a_variable() -> None:
    """Log a traceback of a frame that holds a secret."""
    password = "".join(["held", "in", "a", "variable"])
    try:
        raise ValueError(f"nats://user:{SECRET}@host refused a text of length {len(password)}")
    except ValueError:
        logging.getLogger("own").exception("it failed")
        logging.getLogger("foreign").exception("it failed there")


def test_json_is_one_object_a_line_for_own_and_foreign_lines() -> None:
    stream = logged("json")
    logging.getLogger("harmonylite.part").info("a thing happened", extra={"shard": 3})
    logging.getLogger("uvicorn").warning("from %s", "there", extra={"client": "127.0.0.1"})
    own, foreign = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert (own["message"], own["shard"], own["level"], own["logger"]) == (
        "a thing happened",
        3,
        "info",
        "harmonylite.part",
    )
    assert (foreign["message"], foreign["client"], foreign["level"]) == ("from there", "127.0.0.1", "warning")
    assert own["timestamp"].endswith("Z")


def test_values_that_a_message_names_are_fields_in_json_and_in_the_sentence_for_a_person() -> None:
    named = ("raised stream %(stream)s to %(replicas)d replicas", {"stream": "s-0", "replicas": 3, "level": "none"})
    stream = logged("json")
    logging.getLogger("own").info(*named)
    found = json.loads(stream.getvalue())
    assert (found["message"], found["stream"], found["replicas"]) == ("raised stream s-0 to 3 replicas", "s-0", 3)
    assert found["level"] == "info", "a field takes no name of the line's own"
    stream = logged("console")
    logging.getLogger("own").info(*named)
    assert "raised stream s-0 to 3 replicas" in stream.getvalue()
    assert "stream=" not in stream.getvalue()


def test_no_secret_is_in_a_named_value() -> None:
    stream = logged("json")
    logging.getLogger("own").info("at %(url)s with %(password)s", {"url": f"nats://u:{SECRET}@h", "password": SECRET})
    assert SECRET not in stream.getvalue()


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_secret_reaches_the_log(form: str) -> None:
    stream = logged(form)
    log = logging.getLogger("own")
    more = {"url": f"nats://user:{SECRET}@host", "nested": {"a": [SECRET, {"password": "short"}]}}
    log.info("with %s in it", SECRET, extra=more)
    log.info("by name", extra={"user_password": "abc", "token": "xyz"})
    logging.getLogger("foreign").warning("password=%s at %s", "pqrs", SECRET)
    fail_with_a_secret_in_a_variable()
    text = stream.getvalue()
    assert "it failed" in text
    for secret in (SECRET, "short", "abc", "xyz", "pqrs", "heldinavariable"):
        assert secret not in text


def test_short_known_secrets_do_not_tear_words_apart() -> None:
    stream = logged("console", known=("a", ""))
    logging.getLogger("own").info("a database at last")
    assert "a database at last" in stream.getvalue()


@pytest.mark.parametrize(("verbose", "seen"), [(True, 4), (False, 2)])
def test_verbose_decides_over_details_and_over_foreign_chatter(verbose: bool, seen: int) -> None:
    stream = logged("json", verbose=verbose)
    logging.getLogger("own").debug("a detail")
    logging.getLogger("own").info("news")
    logging.getLogger("nats").info("chatter")
    logging.getLogger("nats").warning("trouble")
    assert len(stream.getvalue().splitlines()) == seen


def test_redact_is_for_other_places_that_show_text() -> None:
    assert redact("nats://a:b@host") == "nats://a:***@host"


def test_the_last_lines_are_kept_without_secrets_and_without_line_ends_in_the_way() -> None:
    tail = LogTail()
    configure(LoggingSettings(), known_secrets=(SECRET,), stream=io.StringIO(), tail=tail)
    log = logging.getLogger("harmonylite.test")
    for number in range(TAIL_LINES + 5):
        log.info("line %d", number)
    log.warning("the password is %s\tand a\nnew line", SECRET)
    kept = tail.lines()
    assert len(kept) == TAIL_LINES
    assert kept[0]["text"] == "line 6"
    assert kept[-1]["level"] == "warning"
    assert kept[-1]["text"] == "the password is ***\tand a\nnew line"
    assert kept[-1]["at"].endswith("Z")
