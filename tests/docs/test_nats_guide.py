"""Every file and every command of docs/nats.md, run against real servers on other ports and in other folders."""

from __future__ import annotations

import json
import re
import shlex
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trustme

from tests.cluster.proc import read_or_nothing
from tests.cluster.processes import until
from tests.docs.guide import Guide, keys, write_row
from tests.parts.nats.fix_keys import new_operator

pytestmark = pytest.mark.timeout(300)

PAGE = "nats.md"
RUN_HERE = {
    "One node",
    "Three nodes",
    "Other machines",
    "A nats-server file of your own",
    "An external cluster",
    "User name and password",
    "NKeys",
    "Credentials files",
    "TLS",
    "The least rights",
    "Monitoring",
    "The checklist before production",
    "Moving out, and back",
}
"""Headings whose blocks have a test below; a block under any other heading fails `test_nothing_is_left_out`."""

EXPORTER_SWITCHES = {"varz", "connz", "routez", "subz", "leafz", "gatewayz", "healthz"}
EXPORTER_TEXTS = {"a", "addr", "p", "port", "path", "ri", "jsz", "prefix", "http_user", "http_pass"}
"""Flags of prometheus-nats-exporter, as its source has them from 0.11 on: switches, and those with a value."""

TO_INSTALL = ("prometheus-nats-exporter ", "scrape_configs:")
"""Blocks about programs that are not part of this project: their flags are looked up, not run."""


@pytest.fixture
def guide(tmp_path: Path) -> Iterator[Guide]:
    """The page at work in memory, where the machine has room for that."""
    with at_work(tmp_path) as page:
        yield page


@pytest.fixture
def lasting() -> Iterator[Guide]:
    """The page at work on a disk: files in memory are a problem to the checklist."""
    with TemporaryDirectory(dir="/var/tmp") as folder, at_work(Path(folder)) as page:
        yield page


@contextmanager
def at_work(folder: Path) -> Iterator[Guide]:
    """Give the page, with certificates and credentials where it says that they are."""
    page = Guide(PAGE, folder)
    etc = folder / "etc/harmonylite"
    etc.mkdir(parents=True)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(etc / "ca.pem"))
    for name, identity in (("server", ("localhost", "127.0.0.1")), ("client", ("node@example.org",))):
        issued = authority.issue_cert(*identity)
        issued.cert_chain_pems[0].write_to_path(str(etc / f"{name}-cert.pem"))
        issued.private_key_pem.write_to_path(str(etc / f"{name}-key.pem"))
    yield page
    page.stop()


def test_nothing_is_left_out(guide: Guide) -> None:
    headings = {b.heading for b in guide.blocks if b.language == "bash" or b.name.endswith(".conf")}
    assert headings == RUN_HERE - {"Other machines", "Credentials files"}
    others = [b.text for b in guide.blocks if b.language in ("console", "yaml")]
    assert all(text.startswith(TO_INSTALL) for text in others)


def test_the_exporters_flags_are_flags_that_it_has(guide: Guide) -> None:
    (line,) = (b.text for b in guide.blocks if b.text.startswith(TO_INSTALL[0]))
    _, *words = shlex.split(line)
    assert words.pop() == "http://localhost:8222", "the address of the monitoring port comes last"
    words.reverse()
    while words:  # as Go reads them: -flag, -flag=value, -flag value
        name, equals, _ = words.pop().removeprefix("-").partition("=")
        if name not in EXPORTER_SWITCHES:
            assert name in EXPORTER_TEXTS, f"the exporter has no -{name}"
            assert equals or words.pop()


def test_every_configuration_of_the_page_is_one(guide: Guide) -> None:
    new_operator().creds(guide.folder / "etc/harmonylite/node.creds")
    guide.command("harmonylite nkey generate -o user.nkey")
    guide.write("/etc/harmonylite/nats-server.conf", "monitor_port = 8222\n")
    names = [block.name for block in guide.blocks if block.name.endswith(".toml")]
    assert len(names) > 12
    for name in names:
        guide.file(name)
    # One process for all: starting one takes longer than what it does.
    program = "import sys; from pathlib import Path; from harmonylite.config import load\n"
    program += "for name in sys.argv[1:]: load(Path(name))\n"
    (guide.folder / "check.py").write_text(program)
    guide.command(f"python check.py {' '.join(names)}")
    said = guide.command("harmonylite config check open.toml")
    assert said is not None
    assert "secure-password-here" not in said


def test_one_node(lasting: Guide) -> None:
    lasting.file("config.toml")
    node, status = lasting.commands("One node")
    lasting.command(node)
    lasting.ready("config.toml")
    assert "ready" in str(lasting.command(status)) or "healthy" in str(lasting.command(status))
    assert list((lasting.folder / "data/nats").glob("*/jetstream")), "the server's files are where the page says"
    checklist = json.loads(str(lasting.command("harmonylite -config config.toml doctor --json")))
    rows = {row["name"]: row for row in checklist["rows"]}
    asked = ("node", "storage", "clock", "access")
    assert [rows[name]["level"] for name in asked] == ["ok"] * len(asked), "the embedded server is asked, too"


def test_three_nodes_by_three_command_lines(guide: Guide) -> None:
    names = [f"node{i}-config.toml" for i in (1, 2, 3)]
    for name in names:
        guide.file(name)
    guide.run("Three nodes")
    for name in names:
        guide.ready(name)
    databases = [guide.folder / f"data/{i}/shop.db" for i in (1, 2, 3)]
    for number, database in enumerate(databases):
        write_row(database, f"from {number}")
    until(lambda: all(len(keys(one)) == 3 for one in databases), "all rows are everywhere")


def test_names_behind_dns_peers_are_looked_up(guide: Guide) -> None:
    guide.file("dns.toml")
    guide.command("harmonylite -config dns.toml")
    files = guide.folder / "data/nats"
    route = f"127.0.0.1:{guide.port('localhost:4221')}"
    until(
        lambda: any(route in read_or_nothing(path) for path in files.glob("*/nats-server.conf")),
        "the address is a route",
    )


def test_an_open_address_needs_credentials(guide: Guide) -> None:
    guide.file("open.toml", **{'user_name = "harmonylite"\n': "", 'user_password = "secure-password-here"\n': ""})
    said = str(guide.command("harmonylite config check open.toml", code=2))
    assert "set nats.user_name and nats.user_password" in said
    assert "insecure = true" in said


def test_two_nodes_with_certificates(guide: Guide) -> None:
    guide.file("tls-node.toml")
    text = next(block.text for block in guide.blocks if block.name == "tls-node.toml")
    swapped = text.replace("4248", "0000").replace("4249", "4248").replace("0000", "4249").replace("/data/", "/data/2/")
    guide.write("tls-second.toml", swapped)
    for name in ("tls-node.toml", "tls-second.toml"):
        guide.command(f"harmonylite -config {name}")
    for name in ("tls-node.toml", "tls-second.toml"):
        guide.ready(name)
    databases = [guide.folder / "data/shop.db", guide.folder / "data/2/shop.db"]
    write_row(databases[0], "in secret")
    until(lambda: "in secret" in keys(databases[1]), "the route carries rows")
    trust = ssl.create_default_context(cafile=guide.folder / "etc/harmonylite/ca.pem")

    def encrypted() -> bool:
        """The server gives a route two seconds to begin."""
        with suppress(OSError):
            line = socket.create_connection(("127.0.0.1", guide.port("127.0.0.1:4248")), 10)
            with line, trust.wrap_socket(line, server_hostname="127.0.0.1") as route:
                return bool(route.getpeercert())
        return False

    until(encrypted, "routes are encrypted")


def test_a_file_of_ones_own_and_the_monitoring_endpoints(guide: Guide) -> None:
    guide.file("own-file.toml")
    guide.file("/etc/harmonylite/nats-server.conf")
    guide.command("harmonylite -config own-file.toml")
    guide.ready("own-file.toml")
    assert (guide.folder / "mnt/fast-disk/nats-jetstream/jetstream").is_dir()
    answers = [json.loads(said[said.index("{") :]) for said in guide.run("Monitoring")]
    varz, connz, routez, subsz, jsz = answers
    assert varz["jetstream"]["config"]["max_storage"] == 100_000_000_000
    assert jsz["config"]["sync_always"], "what the user left out stays ours"
    assert connz["num_connections"] >= 1
    assert routez["num_routes"] == 0
    assert subsz["num_subscriptions"] > 0
    guide.stop()
    mistaken = guide.file("/etc/harmonylite/nats-server.conf", max_memory_store="max_memori_store")
    guide.command("harmonylite -config own-file.toml")
    node = guide.running[0]
    assert node.gone() == 10
    assert f'{mistaken}:4:5: unknown field "max_memori_store"' in node.last_words()


def test_an_external_cluster(guide: Guide) -> None:
    guide.file("nats-1.conf")
    text = next(block.text for block in guide.blocks if block.name == "nats-1.conf")
    for i in "23":
        other = text.replace("nats-1", f"nats-{i}")
        other = other.replace("0.0.0.0:4222", f"nats-server-{i}:4222").replace("0.0.0.0:6222", f"nats-server-{i}:6222")
        guide.write(f"nats-{i}.conf", other)
        guide.command(f"nats-server -c nats-{i}.conf")
    guide.file("external.toml")
    guide.run("An external cluster")
    guide.ready("external.toml")
    said = guide.command("harmonylite -config external.toml doctor -json", code=0 + 11)
    rows = {row["name"]: row for row in json.loads(str(said))["rows"]}
    assert rows["deployment"]["level"] == rows["replicas"]["level"] == "ok"


@pytest.mark.parametrize(
    ("server", "node"), [("password.conf", "password.toml"), ("nkey.conf", "nkey.toml"), ("tls.conf", "tls.toml")]
)
def test_ways_to_log_in(guide: Guide, server: str, node: str) -> None:
    exchanged = {}
    if "nkey" in server:
        public, again = (said.strip() for said in guide.run("NKeys"))
        assert public == again
        exchanged = {"PUBLIC_KEY": public}
    guide.file(server, **exchanged)
    guide.command(f"nats-server -c {server}")
    guide.file(node)
    guide.command(f"harmonylite -config {node}")
    guide.ready(node)


def test_credentials_files(guide: Guide) -> None:
    operator = new_operator()
    operator.creds(guide.folder / "etc/harmonylite/node.creds")
    guide.write("creds.conf", f'listen: "localhost:4222"\njetstream {{ store_dir: "/data/nats" }}\n{operator.config}')
    guide.command("nats-server -c creds.conf")
    guide.file("creds.toml")
    guide.command("harmonylite -config creds.toml")
    guide.ready("creds.toml")


def test_the_least_rights_are_enough_and_none_of_them_is_too_much(guide: Guide) -> None:
    server = guide.file("least-rights.conf", **{'listen: "127': 'trace: true\nlisten: "127'})
    guide.command("nats-server -c least-rights.conf")
    for number in (1, 2):
        text = next(block.text for block in guide.blocks if block.name == "password.toml")
        text = text.replace("shop.db", f"{number}/shop.db") + "[snapshot]\nkeep = 1\n"
        guide.write(f"rights{number}.toml", text)
        guide.command(f"harmonylite -config rights{number}.toml")
    for number in (1, 2):
        guide.ready(f"rights{number}.toml")
    one, two = (guide.folder / f"data/{number}/shop.db" for number in (1, 2))
    for n in range(2):
        write_row(one, f"row {n}")
        until(lambda: len(keys(two)) == len(keys(one)), "rows go through")
        guide.command("harmonylite -config rights1.toml snapshot save")
    guide.command("harmonylite -config rights2.toml verify")
    granted = re.findall(r'"([^"\s]+\.[^"\s]+)"', server.read_text().partition("permissions")[2])
    assert len(granted) > 15

    def unused() -> list[str]:
        """What a node does now and then it may not have done yet."""
        trace = guide.running[0].log.read_text(errors="replace")
        assert "Permissions Violation" not in trace
        used = set(re.findall(r"<<- \[H?PUB (\S+)", trace)) | set(re.findall(r"<<- \[SUB (\S+)", trace))
        return [pattern for pattern in granted if not any(matches(pattern, subject) for subject in used)]

    try:
        until(lambda: not unused(), "every right is used")
    except AssertionError as error:
        raise AssertionError(f"{error}; unused: {unused()}") from None


def matches(pattern: str, subject: str) -> bool:
    """Return whether ``subject`` is within NATS's ``pattern``."""
    expression = re.escape(pattern).replace(r"\*", "[^.]+").replace(">", ".+")
    return re.fullmatch(expression, subject) is not None


def test_the_checklist(guide: Guide) -> None:
    guide.file("external.toml")
    table, exact = guide.commands("The checklist before production")
    said = str(guide.command(table, code=11))
    assert "tables without keys" in said
    rows = json.loads(str(guide.command(exact, code=11)))["rows"]
    assert {row["level"] for row in rows} <= {"ok", "advice", "problem", "unknown"}
    page = (Path(__file__).parents[2] / "docs" / PAGE).read_text()
    listed = page.partition("| line | development |")[2].partition("\n\n")[0]
    for row in rows:
        assert row["name"].partition(":")[0] in listed, f"the page does not list {row['name']}"


def test_moving_out_and_back(guide: Guide) -> None:
    for name in ("embedded.toml", "outside.toml"):
        guide.file(name)
    database = guide.folder / "data/1/shop.db"
    guide.write("server.conf", 'listen: "localhost:4222"\njetstream { store_dir: "/data/external" }\n')
    out, node, back = guide.commands("Moving out, and back")
    guide.command("harmonylite -config embedded.toml")
    guide.ready("embedded.toml")
    write_row(database, "inside")
    guide.command("nats-server -c server.conf")
    assert "streams moved" in str(guide.command(out))
    write_row(database, "between")
    guide.running.pop(0).stop()
    guide.command("harmonylite -config embedded.toml")
    until(lambda: "was moved" in guide.asked("embedded.toml"), "who starts at the old place by mistake is told so")
    guide.running.pop().stop()
    guide.command(node)
    guide.ready("outside.toml")
    write_row(database, "outside")
    verified = guide.command("harmonylite -config outside.toml verify")
    assert verified is not None
    guide.running.pop().stop()
    assert "streams moved" in str(guide.command(back))
    guide.command("harmonylite -config embedded.toml")
    guide.ready("embedded.toml")
    guide.command("harmonylite -config embedded.toml verify")
    assert keys(database) == {"inside", "between", "outside"}
