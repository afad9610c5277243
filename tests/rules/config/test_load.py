"""Reading the configuration: what comes from where, and what a person is told when it is wrong."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

from harmonylite.config import Settings, load
from harmonylite.config.layers import SPELLINGS
from harmonylite.config.load import value_of
from harmonylite.config.write import toml
from harmonylite.errors import ConfigError
from tests.rules.config.fix_config import Faults, Loads

# The published sample of the known system, without its open bind_address.
FAMILIAR = """
node_id=1
seq_map_path="/tmp/seq-map.cbor"
replicate = true
publish = true
scan_max_changes = 512
cleanup_interval = 5000
sleep_timeout = 15000
polling_interval = 0
[snapshot]
enabled=true
store="nats"
interval=0
[snapshot.nats]
replicas=1
[snapshot.s3]
endpoint="127.0.0.1:9000"
path="snapshots/harmonylite"
use_ssl=false
bucket="harmonylite"
[snapshot.webdav]
url="https://host/dav?dir=/snapshots&login=name&secret=password"
[snapshot.sftp]
url="sftp://user:password@host:22/path"
[replication_log]
replicas=1
shards=1
max_entries=1024
compress=true
update_existing=false
[nats]
urls=[
#    "nats://localhost:4222"
]
server_config=""
subject_prefix="harmonylite-change-log"
stream_prefix="harmonylite-changes"
seed_file=""
user_name=""
user_password=""
connect_retries=5
reconnect_wait_seconds=2
[prometheus]
enable=false
[logging]
verbose=true
format="console"
[health_check]
enable=false
bind="0.0.0.0:8090"
path="/health"
detailed=true
"""


def test_a_file_of_the_known_system_works_as_it_stands(loads: Loads) -> None:
    settings = loads(FAMILIAR)
    assert settings.node_id == "1"
    assert settings.sleep_timeout == 15_000
    assert settings.polling_interval == 500, "0 is the default, and says so"
    assert settings.nats.reconnect_wait == 2
    assert settings.replication_log.max_entries == 1024
    assert settings.nats.embedded
    assert settings.nats.seed_file is None
    assert settings.snapshot.sftp.url.get_secret_value() == "sftp://user:password@host:22/path"


def test_flags_win_over_the_environment_and_that_over_the_file(loads: Loads) -> None:
    text = 'node_id = "file"\n[nats]\ncluster_addr = "127.0.0.1:1"\nstream_prefix = "file"'
    settings = loads(
        text,
        {"nats.cluster_addr": "127.0.0.1:3"},
        HARMONYLITE_NATS__CLUSTER_ADDR="127.0.0.1:2",
        HARMONYLITE_NATS__STREAM_PREFIX="environment",
    )
    assert (settings.node_id, settings.nats.stream_prefix) == ("file", "environment")
    assert settings.nats.cluster_addr == "127.0.0.1:3"


def test_the_environment_speaks_for_every_kind_of_key(loads: Loads) -> None:
    settings = loads(
        HARMONYLITE_PUBLISH="no",
        HARMONYLITE_REPLICATION_LOG__SHARDS="4",
        HARMONYLITE_SLEEP_TIMEOUT="1h30m",
        HARMONYLITE_NATS__URLS="nats://one:4222, nats://two:4222",
        HARMONYLITE_TABLES__EXCLUDE='["a,b", "c"]',
        HARMONYLITE_TABLES__CONFLICT='{orders = "row"}',
        HARMONYLITE_NATS__USER_NAME="123",
        HARMONYLITE_NATS__USER_PASSWORD="[secret]",
    )
    assert not settings.publish
    assert settings.replication_log.shards == 4
    assert settings.sleep_timeout == 5_400_000
    assert [url.get_secret_value() for url in settings.nats.urls] == ["nats://one:4222", "nats://two:4222"]
    assert settings.tables.exclude == ("a,b", "c")
    assert settings.tables.conflict == {"orders": "row"}
    assert settings.nats.user_name == "123"
    assert settings.nats.user_password.get_secret_value() == "[secret]"


def test_all_faults_are_told_at_once_each_with_its_line(faults: Faults) -> None:
    text = """publish = "no"
shards = 4
[nats]
ulrs = []
user_password = "hunter2"
[snapshot]
store = "s4"
interval = "15 minutes"
[tables.conflict]
orders = "rows"
"""
    found = faults(text, {"nats.cluster_addr": "nowhere"}, HARMONYLITE_NTS__URLS="x")
    assert found == [
        "-cluster-addr: nats.cluster_addr = 'nowhere' is not host:port with a port of 0 to 65535; "
        'write for example "127.0.0.1:4222"',
        "config.toml: nats.user_name is missing beside user_password; set both",
        "config.toml:2: publish = 'no' is not a switch; write true or false, without quotes",
        "config.toml:3: shards is unknown; did you mean shards in [replication_log]?",
        "config.toml:5: nats.ulrs is unknown; did you mean nats.urls?",
        "config.toml:8: snapshot.store = 's4' is not one of 'nats', 's3', 'azure', 'webdav', 'sftp' or 'file'",
        "config.toml:9: snapshot.interval = '15 minutes' is not a length of time; "
        'write for example "500ms", "30s", "15m" or "1h30m"',
        "config.toml:10: tables.conflict.orders = 'rows' is not one of 'column' or 'row'",
        "HARMONYLITE_NTS__URLS: nts.urls is unknown; did you mean urls in [nats]?",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("pubish = true", "config.toml:2: pubish is unknown; did you mean publish?"),
        (
            "[nats]\nnode_id = 3",
            "config.toml:3: nats.node_id is unknown; did you mean node_id at the top of the file, "
            "before the first [section]?",
        ),
        ("[natz]\nurls = []", "config.toml:2: natz is unknown; did you mean nats?"),
        (
            "[replication_logs]\nshards = 1",
            "config.toml:2: replication_logs is unknown; did you mean replication_log?",
        ),
        ("zebra = 1", "config.toml:2: zebra is unknown; remove it (docs/configuration.md lists every key)"),
        ("nats = 5", "config.toml:2: nats is a table, not a value; write [nats] and its keys below"),
        (
            "[snapshot.s3]\nsecrets = 'x'",
            "config.toml:3: snapshot.s3.secrets is unknown; did you mean snapshot.s3.secret?",
        ),
        (
            "[health_check]\nshards = 1",
            "config.toml:3: health_check.shards is unknown; did you mean shards in [replication_log]?",
        ),
        ("[NATS]\nurls = []", "config.toml:2: NATS is unknown; did you mean nats?"),
        (
            "[health_check]\nadress = 1",
            "config.toml:3: health_check.adress is unknown; "
            "remove it ([health_check] has enable, bind, allowed_hosts, path, detailed)",
        ),
        ("databse_path = 'x'", "config.toml:2: databse_path is unknown; did you mean db_path?"),
        ("nats.ulrs = []", "config.toml:2: nats.ulrs is unknown; did you mean nats.urls?"),
        ("nats = { urls = [], ulrs = [] }", "config.toml:2: nats.ulrs is unknown; did you mean nats.urls?"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(faults: Faults, text: str, told: str) -> None:
    assert faults(text) == [told]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("capture_batch_rows = 0", "capture_batch_rows = 0 is too small; 1 is the least"),
        ('capture_batch_rows = "512"', "is not a whole number"),
        ("capture_batch_rows = 1.5", "capture_batch_rows = 1.5 is not a whole number"),
        ("cleanup_interval = -1", "cleanup_interval = -1 is too small; 0 is the least"),
        ("cleanup_interval = true", "is not a whole number"),
        ("cleanup_interval = inf", "cleanup_interval = inf"),
        ('node_id = "a b"', "is not a node id"),
        (f'node_id = "{"x" * 65}"', "is not a node id"),
        ("node_id = 1.5", "node_id = 1.5 is not text"),
        ("[replication_log]\nreplicas = 6", "replicas = 6 is too large; 5 is the most"),
        ('[nats]\nurls = ["http://host"]', "has the scheme http://"),
        ("[nats]\nurls = [1]", "holds something else than text"),
        ('[nats]\nsubject_prefix = "a.*"', "is not a NATS subject"),
        ('[nats]\nstream_prefix = "a.b"', "is not a name for NATS"),
        ('[nats]\nbind_address = "::1:4222"', 'write an IPv6 address as "[::1]:4222"'),
        ("[nats]\nreconnect_wait_seconds = 0", "is too small; it must be above 0"),
        ('[health_check]\npath = "health"', 'is not a plain path; write for example "/health"'),
        ('[health_check]\npath = "/a{b}"', "is not a plain path"),
        ('[prometheus]\nnamespace = "1st"', "can't be part of a metric's name"),
        ('[prometheus]\nsubsystem = "a-b"', "can't be part of a metric's name"),
        ('[prometheus]\nbind = "127.0.0.1:-1"', "write 0 to let the system choose one"),
        ('[logging]\nformat = "xml"', "is not one of 'console' or 'json'"),
        ('[tables]\ninclude = ["a", ""]', "holds something else than text"),
        ("[tables]\nconflict = 1", "is not a table"),
        ("[tables]\nidentity = 1", "is not a table"),
        ("[tables.links]\nidentity = []", "is empty; name at least 1"),
        ('[tables.links]\nidentty = ["a"]', "is unknown; did you mean identity in [tables]?"),
    ],
)
def test_a_value_that_can_not_be_is_explained(faults: Faults, text: str, part: str) -> None:
    found = faults(text)
    assert len(found) == 1
    assert part in found[0]
    assert found[0].startswith("config.toml:")


def test_what_concerns_one_table_may_stand_in_a_section_of_its_own(loads: Loads) -> None:
    text = '[tables.links]\nidentity = ["a", "b"]\nconflict = "row"\n[tables.identity]\n"*_tags" = ["x"]\n'
    settings = loads(text)
    assert settings.tables.identity == {"*_tags": ("x",), "links": ("a", "b")}
    assert settings.tables.conflict == {"links": "row"}


def test_numbers_and_texts_say_the_same_length_of_time(loads: Loads) -> None:
    settings = loads('sleep_timeout = "15m"\n[snapshot]\ninterval = 900000\n[nats]\nreconnect_wait = "1500ms"')
    assert settings.sleep_timeout == settings.snapshot.interval == 900_000
    assert settings.nats.reconnect_wait == 1.5


def test_zero_is_never_and_not_a_fault(loads: Loads) -> None:
    settings = loads("cleanup_interval = 0\nsleep_timeout = 0\npolling_interval = 0\n[nats]\nconnect_retries = 0")
    assert settings.cleanup_interval == settings.sleep_timeout == settings.nats.connect_retries == 0


EARLIER: dict[str, tuple[str, Any, Any]] = {
    "scan_max_changes": ("capture_batch_rows", 7, 7),
    "snapshot.enabled": ("snapshot.enable", False, False),
    "snapshot.leader_ttl": ("snapshot.lease_ttl", "5s", 5000),
    "nats.home_region": ("nats.primary_region", "here", "here"),
    "nats.interim_after": ("nats.failover_after", 5, 5.0),
    "nats.reconnect_wait_seconds": ("nats.reconnect_wait", "500ms", 0.5),
    "nats.ca_file": ("nats.tls_ca_file", "{file}", "{file}"),
    "nats.cert_file": ("nats.tls_cert_file", "{file}", "{file}"),
    "nats.key_file": ("nats.tls_key_file", "{file}", "{file}"),
}
"""Every earlier spelling of a key: today's, a value as it was written, and what it means."""


def test_every_earlier_spelling_is_tested() -> None:
    assert {".".join(written): ".".join(key) for written, key in SPELLINGS.items() if written != key} == {
        written: key for written, (key, _, _) in EARLIER.items()
    }


@pytest.mark.parametrize("written", EARLIER)
@pytest.mark.parametrize("way", ["file", "environment", "flag"])
def test_an_earlier_spelling_of_a_key_works_for_good(tmp_path: Path, written: str, way: str) -> None:
    (tmp_path / "file").touch()
    key, value, meant = (
        each.format(file=tmp_path / "file") if isinstance(each, str) else each for each in EARLIER[written]
    )
    beside = {"db_path": str(tmp_path / "app.db"), "nats.region": "here", "nats.primary_region": "here"}
    beside |= {"nats.tls_cert_file": str(tmp_path / "file"), "nats.tls_key_file": str(tmp_path / "file")}
    beside = {name: text for name, text in beside.items() if name != key}
    section, _, name = written.rpartition(".")
    file = tmp_path / "config.toml"
    file.write_text((f"[{section}]\n" if section else "") + f"{name} = {toml(value)}\n" if way == "file" else "")
    variable = f"HARMONYLITE_{written.replace('.', '__').upper()}"
    settings = load(
        file,
        beside | ({written: value} if way == "flag" else {}),
        environment={variable: str(value)} if way == "environment" else {},
    )
    found = value_of(settings, tuple(key.split(".")))
    assert (str(found) if isinstance(found, Path) else found) == meant


@pytest.mark.parametrize("name", ["tls_ca_file", "tls_cert_file", "tls_key_file"])
def test_certificates_have_two_spellings(loads: Loads, faults: Faults, tmp_path: Path, name: str) -> None:
    for file in ("one", "two"):
        (tmp_path / file).touch()
    others = {"tls_cert_file": "tls_key_file", "tls_key_file": "tls_cert_file"}
    beside = f'{others[name]} = "{tmp_path}/one"\n' if name in others else ""
    short = name.removeprefix("tls_")
    same = loads(f'[nats]\n{beside}{short} = "{tmp_path}/one"\n{name} = "{tmp_path}/one"')
    assert getattr(same.nats, name) == tmp_path / "one"
    assert getattr(loads(f'[nats]\n{beside}{short} = "{tmp_path}/two"').nats, name) == tmp_path / "two"
    found = faults(f'[nats]\n{beside}{short} = "{tmp_path}/one"\n{name} = "{tmp_path}/two"')
    assert [line for line in found if "two spellings" in line and f"nats.{name}" in line]


def test_a_snapshot_is_switched_by_either_spelling(loads: Loads) -> None:
    assert not loads("[snapshot]\nenabled = false").snapshot.enable
    assert not loads("[snapshot]\nenable = false").snapshot.enable


def test_toml_that_is_none_is_told_with_line_and_column(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('db_path = "a.db"\n[nats\n')
    with pytest.raises(ConfigError, match=r"c\.toml is not TOML: .*line 2, column 6"):
        load(tmp_path / "c.toml", environment={})


def test_a_file_that_is_not_there_or_not_text_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml does not exist; give the right path with -config"):
        load(tmp_path / "none.toml", environment={})
    (tmp_path / "binary.toml").write_bytes(b"a = 1\xff")
    with pytest.raises(ConfigError, match=r"is not UTF-8 at byte 5"):
        load(tmp_path / "binary.toml", environment={})
    with pytest.raises(ConfigError, match="can't be read"):
        load(tmp_path, environment={})


def test_without_a_database_nothing_starts() -> None:
    with pytest.raises(ConfigError, match="db_path is not set; give -config FILE"):
        load(None, environment={})


def test_the_environment_alone_is_enough(tmp_path: Path) -> None:
    settings = load(None, environment={"HARMONYLITE_DB_PATH": str(tmp_path / "a.db"), "PATH": "/bin"})
    assert settings.db_path == tmp_path / "a.db"


def test_a_variable_with_one_underscore_too_few_is_told_the_right_one(faults: Faults) -> None:
    assert faults(HARMONYLITE_NATS_USER_PASSWORD="x", HARMONYLITE_NATS_CA_FILE="y") == [
        "HARMONYLITE_NATS_CA_FILE: nats_ca_file is unknown; "
        "did you mean HARMONYLITE_NATS__CA_FILE, with two underscores?",
        "HARMONYLITE_NATS_USER_PASSWORD: nats_user_password is unknown; "
        "did you mean HARMONYLITE_NATS__USER_PASSWORD, with two underscores?",
    ]


@pytest.mark.parametrize("zero", ["node_id = 0", 'node_id = "0"', "flag", "environment"])
def test_the_node_id_0_is_none_wherever_it_comes_from(loads: Loads, zero: str) -> None:
    if zero == "environment":
        assert loads(HARMONYLITE_NODE_ID="0").node_id == ""
    else:
        assert loads(*(("", {"node_id": "0"}) if zero == "flag" else (zero,))).node_id == ""


def test_settings_can_not_be_changed(loads: Loads) -> None:
    settings: Settings = loads()
    with pytest.raises(FrozenInstanceError):
        settings.publish = False  # type: ignore[misc]  # that is what is tested


def test_snapshots_go_to_a_bucket_named_after_the_streams(loads: Loads) -> None:
    assert loads().snapshot_bucket == "harmonylite-changes-snapshots"
    assert loads('[snapshot.nats]\nbucket = "mine"').snapshot_bucket == "mine"
