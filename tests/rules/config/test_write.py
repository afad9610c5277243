"""What is written down of the configuration is true: the effective one, the template, the documentation."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harmonylite.config import effective, load, reference, template
from harmonylite.config.layers import KEYS, SECTIONS, SPELLINGS
from harmonylite.config.write import toml, variable
from tests.rules.config.fix_config import Loads

DOCS = Path(__file__).parents[3] / "docs" / "configuration.md"
lengths = st.integers(0, 10**9)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    interval=lengths,
    wait=st.floats(0.001, 3600),
    exclude=st.lists(texts.filter(str.strip), max_size=3),
    conflict=st.dictionaries(texts, st.sampled_from(["row", "column"]), max_size=3),
    identity=st.dictionaries(texts, st.lists(texts.filter(str.strip), min_size=1, max_size=2), max_size=2),
    user=texts,
    switch=st.booleans(),
)
def test_the_effective_configuration_reads_back_as_itself(
    tmp_path: Path,
    interval: int,
    wait: float,
    exclude: list[str],
    conflict: dict[str, str],
    identity: dict[str, list[str]],
    user: str,
    switch: bool,
) -> None:
    given_keys = {
        "db_path": str(tmp_path / "app.db"),
        "snapshot.interval": interval,
        "nats.reconnect_wait": wait,
        "tables.exclude": exclude,
        "tables.conflict": conflict,
        "tables.identity": identity,
        "nats.user_name": user,
        "publish": switch,
        "nats.user_password": "something" if user else "",
        "nats.urls": "nats://one:1,tls://two",
    }
    before = load(None, given_keys, environment={})
    file = tmp_path / "effective.toml"
    file.write_text(effective(before), encoding="utf-8")
    after = load(file, {"nats.user_password": given_keys["nats.user_password"]}, environment={})
    assert after == before


def test_the_template_is_a_valid_file_of_the_defaults(loads: Loads, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(template())
    untouched = load(tmp_path / "config.toml", {"db_path": str(tmp_path / "app.db")}, environment={})
    assert untouched == loads()


def test_the_template_with_every_mark_removed_still_says_the_defaults(loads: Loads, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(re.sub(r"(?m)^# ", "", template()))
    full = load(
        tmp_path / "config.toml",
        {"db_path": str(tmp_path / "app.db"), "tables.conflict": {}, "tables.identity": {}},
        environment={},
    )
    assert full == loads()


def test_every_key_stands_in_the_template_with_what_it_does() -> None:
    text = template()
    for key in KEYS.values():
        assert re.search(rf"(?m)^(# )?(\[tables\.)?{re.escape(key.path[-1])}( =|\])", text), key.name
        assert key.description, key.name


def test_the_documentation_has_every_key_as_the_code_has_it() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert reference() in text, "docs/configuration.md: put harmonylite.config.reference() between its two marks"
    for path, target in SPELLINGS.items():
        assert f"`{path[-1]}`" in text, target
    for path in SECTIONS:
        assert not path or f"[{'.'.join(path)}]" in text
    for example in re.findall(r"HARMONYLITE_[A-Z0-9_]+", text):
        assert example in {variable(key) for key in KEYS.values()}, example


def test_the_examples_of_the_documentation_are_valid(tmp_path: Path) -> None:
    blocks = re.findall(r"```toml\n(.*?)```", DOCS.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert blocks
    for block in blocks:
        file = tmp_path / "example.toml"
        text = block if "db_path" in block else f'db_path = "app.db"\n{block}'
        file.write_text(text)
        # Folders and files of the examples don't exist here; everything else of them must be right.
        overrides = {"db_path": str(tmp_path / "app.db")}
        overrides |= {f"nats.{name}": "" for name in re.findall(r"(?m)^(\w+_file|server_config) =", block)}
        load(file, overrides, environment={})


def test_toml_is_written_so_that_every_text_comes_back() -> None:
    assert toml(("a\x7f\x00\n", True, 1, 0.5, None)) == '["a\\u007f\\u0000\\n", true, 1, 0.5, ""]'


def test_no_flag_is_torn_apart_where_lines_of_the_template_end() -> None:
    assert [line for line in template().splitlines() if line.endswith("-")] == []
