"""The unit of docs/operating.md is one that systemd takes, and what it says of exit codes and keys is so."""

from __future__ import annotations

import configparser
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from harmonylite.errors import ConfigError, FencedError
from tests.cluster.fix_cluster import Site
from tests.cluster.processes import SECONDS
from tests.docs.guide import DOCS, blocks
from tests.needs import ANALYZE
from tests.ports import free_port

UNIT = next(block.text for block in blocks(DOCS / "operating.md") if block.language == "ini")


CONTRIB = DOCS.parent / "contrib" / "harmonylite.service"


def unit() -> configparser.SectionProxy:
    """Return the unit's service section."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # names keep their case
    parser.read_string(UNIT)
    return parser["Service"]


def test_the_unit_restarts_whatever_mends_itself_and_nothing_else() -> None:
    codes = {int(code) for code in unit()["RestartPreventExitStatus"].split()}
    assert codes == {ConfigError.exit_code, FencedError.exit_code}


def test_the_unit_leaves_the_end_of_the_embedded_server_to_the_node() -> None:
    assert unit()["KillMode"] == "mixed"
    assert unit()["Type"] == "notify"


def test_the_unit_to_install_is_that_of_the_page_without_what_needs_a_further_file() -> None:
    told = [line for line in UNIT.splitlines() if "user.nkey" not in line]
    lines = CONTRIB.read_text().splitlines()
    assert [line for line in lines if not line.startswith("# ") or line == told[0]] == told
    assert {line.removeprefix("# ") for line in lines} >= set(UNIT.splitlines()) - {told[0]}


@ANALYZE.mark
@pytest.mark.parametrize("text", [UNIT, CONTRIB.read_text()], ids=["page", "contrib"])
def test_systemd_takes_the_unit(tmp_path: Path, text: str) -> None:
    file = tmp_path / "harmonylite.service"
    file.write_text(text.replace("/opt/harmonylite/bin/harmonylite", str(Path(sys.executable).parent / "harmonylite")))
    command = ["systemd-analyze", "verify", "--man=no", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not [line for line in done.stderr.splitlines() if "harmonylite.service" in line]


def test_a_service_has_begun_before_nats_is_there(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"harmonylite-{site.folder.name}-{free_port()}"
    heard = ""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + name)
        systemd.settimeout(SECONDS)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        node = site.node("one", urls=[f"nats://127.0.0.1:{free_port()}"])
        node.start()
        while not ("READY=1" in heard and "NATS server not accepting connections" in heard):
            heard += systemd.recv(4096).decode()
        node.signal(signal.SIGTERM)
        while "STOPPING=1" not in heard:
            heard += systemd.recv(4096).decode()
        assert node.gone() == 0
