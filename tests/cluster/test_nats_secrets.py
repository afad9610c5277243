"""No secret that a node is given stands anywhere that others may look: logs, errors, `ps`, health, metrics, files."""

from __future__ import annotations

import os
import re
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.cluster.fix_cluster import Site
from tests.cluster.proc import read_or_nothing
from tests.cluster.processes import Node, until
from tests.parts.nats.fix_keys import new_operator
from tests.ports import free_port

pytestmark = pytest.mark.timeout(300)

PASSWORD = "hush-p4ss/w%rd"
TOKEN = "hush-t0ken"


def shown(node: Node) -> Iterator[tuple[str, str]]:
    """Yield everything that others see of a running node, by at which position it is."""
    for pid in (node.pid, *node.children()):
        yield f"ps {pid}", read_or_nothing(Path(f"/proc/{pid}/cmdline")).replace("\0", " ")
    for path in ("/health", "/readyz", "/metrics", "/", "/status.json"):
        yield path, str(node.get(path)[1])
    for words in (("status", "-json"), ("doctor", "-json"), ("config", "check", str(node.config))):
        yield " ".join(words), node.command(*words)[1]


def secrets_in(folder: Path, secrets: list[str]) -> list[str]:
    """Return files that hold a secret and that somebody else may read, or that are logs."""
    found = []
    for path in folder.rglob("*"):
        if not path.is_file() or path.suffix in (".toml", ".conf.given", ".creds", ".nkey"):
            continue
        try:
            content = path.read_bytes()
            private = stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 and path.suffix != ".log"
        except FileNotFoundError:
            continue  # a stream's files come and go
        if not private and any(secret.encode() in content for secret in secrets):
            found.append(str(path))
    return found


def check(node: Node, secrets: list[str]) -> None:
    """Look everywhere."""
    leaks = [where for where, text in shown(node) for secret in secrets if secret in text]
    log = node.log.read_text(errors="replace")
    leaks += [f"the log: {line}" for line in log.splitlines() for secret in secrets if secret in line]
    leaks += secrets_in(node.folder, secrets)
    assert leaks == []


def test_an_embedded_node_keeps_password_and_generated_credentials_to_itself(site: Site) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    tls = site.folder / "tls"
    tls.mkdir()
    authority.cert_pem.write_to_path(str(tls / "ca"))
    issued.cert_chain_pems[0].write_to_path(str(tls / "cert"))
    issued.private_key_pem.write_to_path(str(tls / "key"))
    one, two = free_port(), free_port()
    node = Node(
        "secretive",
        site.folder / "secretive",
        sections={
            "nats": {
                "cluster_addr": f"127.0.0.1:{one}",
                "cluster_peers": [f"nats://127.0.0.1:{two}/"],
                "user_name": "me",
                "user_password": PASSWORD,
                "tls_ca_file": str(tls / "ca"),
                "tls_cert_file": str(tls / "cert"),
                "tls_key_file": str(tls / "key"),
            },
            "logging": {"verbose": True},
            "prometheus": {"enable": True},
        },
    )
    node.sections["prometheus"]["bind"] = f"127.0.0.1:{node.port}"
    site.running.append(node)
    node.start()
    # the first server is a guest's, which only looks who is there
    until(lambda: re.search("waiting for it: .*streams", node.log.read_text()), "the node's own server is up")
    os.kill(node.pid_of_server(), signal.SIGKILL)
    node.logged("restarting embedded nats-server")
    node.signal(signal.SIGHUP)
    node.logged("Error trying to connect to route")
    check(node, [PASSWORD, "hush-p4ss%2Fw%25rd", "BEGIN PRIVATE KEY", "BEGIN RSA PRIVATE KEY"])


def test_a_clusters_secret_stays_in_files_of_its_owner(site: Site, state_home: Path) -> None:
    nodes = site.embedded(2, replicas=1)
    for node in nodes:
        node.sections["logging"] = {"verbose": True}
        node.start()
    for node in nodes:
        node.ready()
    secret = (state_home / "harmonylite" / "cluster-harmonylite.secret").read_text().strip()
    for node in nodes:
        check(node, [secret])


@pytest.mark.parametrize("way", ["url", "token", "creds", "refused"])
def test_a_node_of_an_external_nats_keeps_what_it_logs_in_with_to_itself(site: Site, way: str) -> None:
    operator = new_operator()
    creds = operator.creds(site.folder / "node.creds")
    creds.chmod(0o600)
    given = {
        "url": f'authorization {{ user: me, password: "{PASSWORD}" }}',
        "token": f"authorization {{ token: {TOKEN} }}",
        "creds": operator.config,
        "refused": "authorization { user: me, password: other }",
    }[way]
    server = site.server(more=given)
    quoted = PASSWORD.replace("%", "%25").replace("/", "%2F")
    url = server.url.replace("//", f"//me:{quoted}@") if way in ("url", "refused") else server.url
    nats = {"url": {}, "refused": {}, "token": {"token": TOKEN}, "creds": {"creds_file": str(creds)}}[way]
    node = site.node("client", urls=[url], sections={"nats": nats, "logging": {"verbose": True}})
    node.start()
    if way == "refused":
        assert node.gone() == 6
        assert "Authorization Violation" in node.last_words()
    else:
        until(lambda: "connected to NATS" in node.log.read_text(), "it is let in")
        server.kill()
        until(lambda: " lost: " in node.log.read_text() and node.waits("nats"), "it tells of the loss")
    secrets = [PASSWORD, quoted, TOKEN]
    secrets += [line for line in creds.read_text().splitlines() if len(line) > 50]
    if way == "refused":
        assert not [line for line in node.last_words().splitlines() for secret in secrets if secret in line]
    else:
        check(node, secrets)
