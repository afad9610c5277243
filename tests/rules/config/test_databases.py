"""`[[database]]`: each has settings of its own over those of the file, and nothing that the process has once."""

from __future__ import annotations

from pathlib import Path

import pytest

from harmonylite.config import Settings, load, load_all
from harmonylite.errors import ConfigError

TWO = """
node_id = "left"
publish = false
[nats]
urls = ["nats://127.0.0.1:4222"]
[[database]]
name = "main"
db_path = "main.db"
[[database]]
name = "logs"
db_path = "logs.db"
publish = true
[database.tables]
exclude = ["scratch_*"]
[database.nats]
stream_prefix = "harmonylite-changes"
subject_prefix = "harmonylite-change-log"
"""


def loaded(tmp_path: Path, text: str) -> list[Settings]:
    file = tmp_path / "config.toml"
    file.write_text(text)
    return list(load_all(file, environment={}))


def faults(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text)
    return str(caught.value)


def test_each_has_the_files_settings_under_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    main, logs = loaded(tmp_path, TWO)
    assert (main.name, main.db_path, main.publish, main.tables.exclude) == ("main", tmp_path / "main.db", False, ())
    assert (logs.name, logs.publish, logs.tables.exclude) == ("logs", True, ("scratch_*",))
    assert main.node_id == logs.node_id == "left"
    assert main.beside == logs.beside == (tmp_path / "main.db", tmp_path / "logs.db")


def test_each_has_streams_of_its_own_unless_it_names_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    main, logs = loaded(tmp_path, TWO)
    assert (main.nats.stream_prefix, main.nats.subject_prefix) == (
        "harmonylite-changes-main",
        "harmonylite-change-log-main",
    )
    assert (logs.nats.stream_prefix, logs.nats.subject_prefix) == ("harmonylite-changes", "harmonylite-change-log")
    assert main.snapshot_bucket != logs.snapshot_bucket


def test_a_file_without_any_is_one_database_without_a_name(tmp_path: Path) -> None:
    (only,) = loaded(tmp_path, f'db_path = "{tmp_path}/app.db"\n')
    assert (only.name, only.beside) == ("", (tmp_path / "app.db",))
    assert only.nats.stream_prefix == "harmonylite-changes"


def test_one_of_several_is_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "config.toml"
    file.write_text(TWO)
    assert load(file, database="logs").name == "logs"
    with pytest.raises(ConfigError, match=r"has 2 databases; name one with -database: main, logs"):
        load(file)
    with pytest.raises(ConfigError, match=r"no \[\[database\]\] is named log; name one"):
        load(file, database="log")
    file.write_text('db_path = "app.db"\n')
    with pytest.raises(ConfigError, match=r"there is no \[\[database\]\] named logs; leave -database out"):
        load(file, database="logs")


ENTRY = '[[database]]\nname = "{}"\ndb_path = "{}"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[database]]\ndb_path = "a.db"\n', "[[database]] 1: name is not a name"),
        ('[[database]]\nname = "a b"\ndb_path = "a.db"\n', "name is not a name"),
        ('[[database]]\nname = "a"\n', "[[database]] a: db_path is not set"),
        (ENTRY.format("a", "a.db") + ENTRY.format("a", "b.db"), "name = 'a' is that of [[database]] a, too"),
        (ENTRY.format("a", "a.db") + ENTRY.format("b", "./a.db"), "is that of [[database]] a, too"),
        ('db_path = "c.db"\n' + ENTRY.format("a", "a.db"), "db_path can't be shared by several databases"),
        ('[feed]\nsubject = "x"\n' + ENTRY.format("a", "a.db"), "feed.subject can't be shared"),
        ("sleep_timeout = 5\n" + ENTRY.format("a", "a.db"), "sleep_timeout has no meaning for several databases"),
        (ENTRY.format("a", "a.db") + 'node_id = "x"\n', "[[database]] a: node_id belongs to the whole process"),
        (ENTRY.format("a", "a.db") + 'nats = {urls = ["x:1"]}\n', "nats.urls belongs to the whole process"),
        (ENTRY.format("a", "a.db") + "[database.page]\nopen = false\n", "page.open belongs to the whole process"),
        (ENTRY.format("a", "a.db") + "publihs = false\n", "[[database]] a: publihs is unknown; did you mean publish?"),
        (ENTRY.format("a", "a.db") + "[database.merge]\npatience = -1\n", "merge.patience = -1 is too small"),
        ('[database]\nname = "a"\n', "database is not a list of tables; write [[database]]"),
        ("database = 5\n", "database is not a list of tables"),
        (
            ENTRY.format("a", "a.db")
            + '[database.nats]\nstream_prefix = "harmonylite-changes-b"\n'
            + ENTRY.format("b", "b.db"),
            "nats.stream_prefix = 'harmonylite-changes-b' is that of [[database]] a, too",
        ),
    ],
)
def test_what_can_not_be_is_refused_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in faults(tmp_path, text)
