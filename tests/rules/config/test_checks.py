"""Keys that need or exclude one another, files that must be there, and keys that have no effect."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harmonylite.config import NatsSettings, notes
from tests.rules.config.fix_config import Faults, Loads


def test_a_database_that_is_no_file_is_told_and_why(faults: Faults, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, part in [
        (f"{tmp_path}/folder", "is a directory; name the SQLite file in it"),
        (f"{tmp_path}/none/app.db", "the folder none does not exist; make it, or correct the path"),
        (f"{tmp_path}/pipe", "is not a regular file"),
        ("", "is empty; name the SQLite file to replicate"),
        (":memory:", "is not a path"),
        ("file:app.db?mode=ro", "is not a path"),
    ]:
        (told,) = faults(f'db_path = "{name}"', bare=True)
        assert told.startswith("config.toml:1: db_path")
        assert part in told


def test_a_database_that_does_not_exist_yet_is_fine(loads: Loads, tmp_path: Path) -> None:
    assert loads().db_path == tmp_path / "app.db"


def test_paths_are_absolute_and_know_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loads: Loads
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert loads('db_path = "app.db"', bare=True).db_path == tmp_path / "app.db"
    assert loads('db_path = "~/app.db"', bare=True).db_path == tmp_path / "app.db"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('user_name = "a"', "nats.user_password is missing beside user_name"),
        ('user_password = "a"', "nats.user_name is missing beside user_password"),
        ('user_name = "a"\nuser_password = "b"\ntoken = "c"', "nats.token and user_name are two ways to log in"),
        ('tls_cert_file = "{here}"', "nats.tls_key_file is missing; a certificate and its key belong together"),
        ('key_file = "{here}"', "nats.tls_cert_file is missing"),
        ('cluster_peers = ["nats://a:1/"]', "nats.cluster_addr is missing beside cluster_peers"),
        ('ca_file = "/none/ca.pem"', "config.toml:3: nats.tls_ca_file = '/none/ca.pem': there is no such file"),
        ('seed_file = "/none/seed"', "nats.seed_file = '/none/seed': there is no such file"),
        ('server_config = "/"', "nats.server_config = '/' is not a file"),
        ('bind_address = "0.0.0.0:4222"', "nats.insecure = true to insist"),
        ('bind_address = ":4222"', "lets everyone who reaches this machine read and change all data"),
        ('bind_address = "[::]:4222"', "nats.bind_address"),
        ('cluster_addr = "10.0.0.1:4221"', "(or nats.cluster_secret_file)"),
        (
            'cluster_addr = "127.0.0.1:1"\ncluster_secret_file = "/none/s"',
            "nats.cluster_secret_file = '/none/s': the folder",
        ),
        ('cluster_addr = "127.0.0.1:1"\ncluster_secret_file = "/"', "nats.cluster_secret_file = '/' is not a file"),
        ('bind_address = "0.0.0.0:1"\ncluster_secret_file = "{here}"', "nats.bind_address"),
        ('region = "a"', "nats.primary_region is missing beside region"),
        ('primary_region = "a"', "nats.region is missing beside primary_region"),
        ('leaf_servers = ["nats://a:7422"]', "nats.region is missing beside leaf_servers"),
        ('user_name = "a"\nuser_password = "b"\nleaf_addr = "127.0.0.1:1"', "nats.region is missing beside leaf_addr"),
        ('region = "b"\nhome_region = "a"', "nats.leaf_servers is missing: every node of region b needs a leaf link"),
        ('region = "a"\nhome_region = "a"\nleaf_addr = "127.0.0.1:7422"', "nats.user_name is missing beside leaf_addr"),
    ],
)
def test_nats_keys_that_do_not_fit_together_are_told(faults: Faults, tmp_path: Path, text: str, part: str) -> None:
    (tmp_path / "here").touch()
    (told,) = faults(f"[nats]\n{text.replace('{here}', str(tmp_path / 'here'))}")
    assert part in told


@pytest.mark.parametrize(
    "text",
    [
        'bind_address = "127.0.0.1:4222"\ncluster_addr = "localhost:4221"',
        'bind_address = "[::1]:-1"',
        'bind_address = "0.0.0.0:4222"\ninsecure = true',
        'bind_address = "0.0.0.0:4222"\nuser_name = "a"\nuser_password = "b"',
        'bind_address = "0.0.0.0:4222"\nurls = ["nats://a"]',
        'cluster_addr = "0.0.0.0:4221"\ncluster_secret_file = "made-at-the-start"',
    ],
)
def test_what_is_safe_or_insisted_on_may_listen(loads: Loads, text: str) -> None:
    assert loads(f"[nats]\n{text}").nats != NatsSettings()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('store = "s3"', "snapshot.s3.bucket is not set"),
        ('store = "azure"\nazure.container = "snaps"', "snapshot.azure.account is not set"),
        ('store = "azure"\nazure.account = "shop"', "snapshot.azure.container is not set"),
        ('azure.account_key = "a"\nazure.sas_token = "b"', "snapshot.azure.sas_token and account_key are both set"),
        ('store = "webdav"', "snapshot.webdav.url is not set"),
        ('store = "sftp"', "snapshot.sftp.url is not set"),
        ('store = "file"', "snapshot.file.path is not set"),
        ('store = "file"\nfile.path = "/none/here"', "snapshot.file.path = '/none/here' is not a directory"),
    ],
)
def test_a_store_needs_its_keys_only_while_snapshots_are_on(faults: Faults, loads: Loads, text: str, told: str) -> None:
    assert told in faults(f"[snapshot]\n{text}")[0]
    assert not loads(f"[snapshot]\nenable = false\n{text}").snapshot.enable


def test_dependent_faults_are_told_beside_faults_of_single_keys(faults: Faults) -> None:
    assert len(faults('publish = 1\n[nats]\nuser_name = "a"\nca_file = "/none"\n[snapshot]\nstore = "s3"')) == 4


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('nats.cluster_secret_file = "s"', "nats.cluster_secret_file has no effect without cluster_addr"),
        ('seq_map_path = "/tmp/seq-map.cbor"', "seq_map_path has no effect: positions are kept inside the databases"),
        ('nats.urls = ["nats://a"]\nnats.bind_address = "127.0.0.1:1"', "nats.bind_address has no effect"),
        ("replication_log.replicas = 3", "the embedded server has no peers"),
        ('nats.token = "abcdef"', "nats.token has no effect"),
        ("publish = false\nreplicate = false", "this node only watches"),
        ("sleep_timeout = 1000\nsnapshot.enable = false", "without a snapshot"),
    ],
)
def test_a_key_without_effect_is_answered_with_one_line(loads: Loads, text: str, part: str) -> None:
    (note,) = notes(loads(text))
    assert part in note


def test_ordinary_configurations_need_no_notes(loads: Loads) -> None:
    assert notes(loads()) == []


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ('path = "/livez"', "another answer"),
        ('path = "/"', "the page"),
        ('path = "/metrics"\n[prometheus]\nenable = true\nbind = "127.0.0.1:8090"', "metrics"),
    ],
)
def test_the_health_check_hides_nothing_else(faults: Faults, text: str, taken: str) -> None:
    (told,) = faults(f"[health_check]\nenable = true\n{text}")
    assert f"is where {taken} is; take another" in told


@pytest.mark.parametrize(
    "text", ['path = "/"\ndetailed = false', 'path = "/metrics"', 'enable = false\npath = "/"', 'path = "/health/"']
)
def test_a_path_that_nothing_else_answers_at_is_fine(loads: Loads, text: str) -> None:
    enable = "" if "enable" in text else "enable = true\n"
    loads(f"[health_check]\n{enable}{text}\n[prometheus]\nenable = true")


def test_a_link_to_a_database_is_that_database_so_that_no_second_node_runs_for_it(
    loads: Loads, faults: Faults, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link.db").symlink_to(tmp_path / "app.db")
    assert loads(f'db_path = "{tmp_path}/elsewhere/link.db"', bare=True).db_path == tmp_path / "app.db"
    (tmp_path / "round.db").symlink_to(tmp_path / "round.db")
    (told,) = faults(f'db_path = "{tmp_path}/round.db"', bare=True)
    assert "can't be looked at" in told


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o604, 0o660, 0o644])
def test_a_key_that_others_can_read_signs_nothing(loads: Loads, faults: Faults, tmp_path: Path, mode: int) -> None:
    (tmp_path / "key").touch()
    (tmp_path / "key").chmod(mode)
    text = f'[snapshot]\nsign_key = "{tmp_path}/key"'
    if mode & 0o077:
        (told,) = faults(text)
        assert "snapshot.sign_key = 'key' can be read by others, who could sign with it: chmod 600 key" in told
    else:
        assert loads(text).snapshot.sign_key == tmp_path / "key"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('sign_key = "/none/key"', "snapshot.sign_key = '/none/key': there is no such file"),
        ('trusted_keys = ["U" ]\nsign_key = "{here}"', "snapshot.trusted_keys holds 'U'; write public keys"),
        (
            f'trusted_keys = ["SU{"A" * 56}"]\nsign_key = "{{here}}"',
            "snapshot.trusted_keys holds a seed, which is a secret",
        ),
        (f'trusted_keys = ["U{"A" * 55}"]', "snapshot.sign_key is missing beside trusted_keys"),
    ],
)
def test_keys_for_signatures_that_do_not_fit_are_told(faults: Faults, tmp_path: Path, text: str, part: str) -> None:
    (tmp_path / "here").touch()
    (tmp_path / "here").chmod(0o600)
    (told,) = faults(f"[snapshot]\n{text.replace('{here}', str(tmp_path / 'here'))}")
    assert part in told
    assert "SUAA" not in told
