"""The words of `docs/glossary.md`, and none of those that they replaced, in code, messages and documentation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
FILES = sorted(str(path.relative_to(ROOT)) for path in [*(ROOT / "src").rglob("*.py"), *PAGES])

REPLACED = {
    r"anew": "again; starts a new epoch",
    r"whoever": "anyone who; name who it is",
    r"for ever": "permanently; fixed",
    r"mend(s|ed|ing)?": "correct, fix, repair",
    r"interim": "failover",
    r"home region|home's": "primary region",
    r"goes on|went on": "continues, resumes",
    r"foresaw|unforeseen": "expected, unexpected",
    r"(open_)?doors": "open ports",
    r"tidy(ing)?": "clean up",
    r"stands?|stood": "is, has the position, means",
    r"as it was": "the state at; unchanged",
    r"go on": "continue",
    r"gr[eo]wn? up": "share an ancestor",
    r"admit|keep_pace": "throttle, wait for room",
    r"hears|hear of": "receives, is called with",
    r"told|tells?|telling|teller": "show, report, log, return, identify, distinguish",
    r"nobody('s)?": "name who: no node, no process, no caller",
    r"(some|any|every)body('s)?": "name who: another process, a client, any node; else someone, anyone, everyone",
    r"beyond": "above, after, past, ahead of",
    r"apart": "separate, except, different",
    r"heard|unheard": "received, seen, last heartbeat",
    r"of late": "recently",
    r"gone for good": "permanently gone",
    r"as ever": "as usual",
    r"hardly ever": "rarely",
    r"in vain": "without success",
    r"\w*_looks?|looks?(_\w+|\()": "poll, check, stat, refresh",
    r"(a|each|every|the|last|next|first|second|another|further) look|between looks": "poll, check",
}
"""What is not written here, and what to write instead."""

WRONG = re.compile(rf"(?<![A-Za-z])(?:{'|'.join(REPLACED)})(?![A-Za-z])", re.IGNORECASE)
"""Any of them; an identifier's pieces are words, too."""

STORED = re.compile(
    r"interim-|-interim|\.interim\.|harmonylite-interim|`?interim_after`?|`?home_region`?|interim-\*|flake8-tidy"
    r"|stand[-_]in|spool\.tell\(|`test_\w+`|\"beyond\"|name=\"anybody\"|(\w+_)?last_heard\w*"
    r"|harmonylite_looks\w*|only_look",
    re.IGNORECASE,
)
"""Names that configurations, streams and files have kept from earlier versions."""


def wrong_words(text: str) -> list[str]:
    """Return line and advice for each word of ``text`` that another one replaced."""
    return [
        f"line {number}: {match[0]!r}: write {advice(match[0])}"
        for number, line in enumerate(STORED.sub("", text).splitlines(), 1)
        for match in WRONG.finditer(line)
    ]


def advice(word: str) -> str:
    """Return what to write instead of ``word``, which is one of `WRONG`."""
    return next(better for wrong, better in REPLACED.items() if re.fullmatch(wrong, word, re.IGNORECASE))


@pytest.mark.parametrize("file", FILES)
def test_replaced_words_stay_away(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    assert wrong_words(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "is made anew",
        "# goes on",
        "def open_doors(): ...",
        "an interim order",
        "Mend it",
        "is told",
        "that nobody reads",
        "beyond this",
        "take it apart",
        "Somebody's file",
        "not heard of late",
        "def _look(self): ...",
        "LOOK_EVERY = 1.0",
        "before the next look",
    ],
)
def test_a_replaced_word_is_seen(text: str) -> None:
    assert wrong_words(text)


@pytest.mark.parametrize(
    "text",
    [
        "recommend it",
        'PREFIX = "interim-"',
        "amended",
        "`home_region`",
        "spool.tell()",
        "last_heard",
        "apartment",
        "looks it up",
    ],
)
def test_parts_of_words_and_stored_names_are_none(text: str) -> None:
    assert not wrong_words(text)


def test_the_glossary_has_a_meaning_for_each_word() -> None:
    rows = re.findall(r"^\| (.+?) \| (.+) \|$", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE)
    entries = [(name, meaning) for name, meaning in rows if name.startswith("**")]
    names = [word for name, _ in entries for word in re.findall(r"\*\*(.+?)\*\*", name)]
    assert len(names) == len(set(names)) > 50
    assert all(len(meaning) > 15 for _, meaning in entries)


def test_no_two_classes_have_one_name() -> None:
    found: dict[str, list[str]] = {}
    for path in (ROOT / "src").rglob("*.py"):
        for name in re.findall(r"^class ([A-Z]\w*)", path.read_text(encoding="utf-8"), re.MULTILINE):
            found.setdefault(name, []).append(path.name)
    assert {name: files for name, files in found.items() if len(files) > 1} == {}
