"""What contrib/ brings: containers whose flags and keys there are, the manual page, a package that installs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from rich_click import Option

from harmonylite.cli.man_command import man_page
from harmonylite.cli.root import root
from harmonylite.config import load

ROOT = Path(__file__).parents[2]
CONTRIB = ROOT / "contrib"
COMPOSE = yaml.safe_load((CONTRIB / "docker" / "compose.yml").read_text())
MANIFESTS = {file.name: list(yaml.safe_load_all(file.read_text())) for file in (CONTRIB / "kubernetes").glob("*.yaml")}
FLAGS = {name for option in root.params if isinstance(option, Option) for name in option.opts}


def started() -> Iterator[tuple[str, list[str], dict[str, str]]]:
    """Yield a name, the arguments and the environment of each node that compose or Kubernetes starts."""
    for name, service in COMPOSE["services"].items():
        yield name, service["command"], service["environment"]
    for file, listed in MANIFESTS.items():
        for pod in (each["spec"]["template"]["spec"] for each in listed if "template" in each["spec"]):
            (node,) = pod["initContainers"]
            told = {each["name"]: each.get("value", "a-token-of-thirty-two-characters") for each in node["env"]}
            own = {name: value for name, value in told.items() if name.startswith("HARMONYLITE_")}
            yield file, node.get("args", []), own


NODES = [pytest.param(words, given, id=name) for name, words, given in started()]


@pytest.mark.parametrize(("words", "given"), NODES)
def test_each_flag_and_key_of_a_container_is_one_of_a_node(
    words: list[str], given: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(words[::2]) <= FLAGS
    (tmp_path / "user.nkey").write_text("a seed")
    places = {"/data": str(tmp_path), "/secrets": str(tmp_path), "$(POD_NAME)": "shop-0"}
    for name, value in given.items():
        for there, here in places.items():
            value = value.replace(there, here)
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HARMONYLITE_DB_PATH", str(tmp_path / "app.db"))
    settings = load(None)
    assert settings.health_check.enable or "HARMONYLITE_HEALTH_CHECK__ENABLE" not in given
    assert settings.node_id in ("shop-0", *given.values())


@pytest.mark.parametrize("version", ["1.30", "1.33", kubernetes_validate.latest_version()])
@pytest.mark.parametrize("file", MANIFESTS)
def test_kubernetes_knows_every_field_of_a_manifest(file: str, version: str) -> None:
    assert len(MANIFESTS[file]) == 2
    for manifest in MANIFESTS[file]:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_the_nodes_of_a_cluster_name_one_another() -> None:
    names = set(COMPOSE["services"])
    for name, service in COMPOSE["services"].items():
        words: dict[str, Any] = dict(zip(service["command"][::2], service["command"][1::2], strict=True))
        assert words["-cluster-addr"] == f"{name}:4222"
        assert {url.split("/")[2] for url in words["-cluster-peers"].split(",")} == {
            f"{n}:4222" for n in names - {name}
        }
        assert service["environment"]["HARMONYLITE_NODE_ID"] == name


def test_hadolint_has_nothing_to_say_of_the_dockerfile() -> None:
    found = shutil.which("hadolint", path=Path(sys.executable).parent)
    assert found
    done = subprocess.run([found, CONTRIB / "docker" / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_dockerfile_copies_and_installs_what_there_is() -> None:
    ignored = (CONTRIB / "docker" / "Dockerfile.dockerignore").read_text().split()
    for name in (each.removeprefix("!") for each in ignored if each.startswith("!")):
        assert list(ROOT.glob(name)), name
    for word in (CONTRIB / "docker" / "Dockerfile").read_text().split():
        assert not word.startswith("requirements") or (ROOT / word).exists()


def test_the_manual_page_has_every_command_and_flag() -> None:
    page = man_page(root)
    for words in ("status", "node forget [name]", "snapshot restore", "verify", "tail"):
        assert f"\nharmonylite {words}".replace("-", r"\-") in page.casefold()
    for flag in FLAGS:
        assert rf"\fB{flag}".replace("-", r"\-") in page


@pytest.mark.timeout(300)
def test_the_wheel_and_the_source_archive_have_all_that_a_node_needs(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,), (archive,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    packed = set(zipfile.ZipFile(wheel).namelist())
    here = {str(file.relative_to(ROOT / "src")) for file in (ROOT / "src" / "harmonylite").rglob("*") if file.is_file()}
    assert {name for name in here if "__pycache__" not in name} <= packed
    with tarfile.open(archive) as source:
        names = {name.partition("/")[2] for name in source.getnames()}
    assert {"contrib/docker/Dockerfile", "contrib/prometheus/alerts.yml", "docs/page.png", "LICENSE"} <= names

    # Installed beside nothing of this checkout; what it depends on comes from the tests' own environment.
    place = tmp_path / "installed"
    venv.create(place, with_pip=True)
    python = place / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    (packages,) = place.glob("lib/python3*/site-packages")
    there = [each for each in sys.path if each.endswith("site-packages")]
    (packages / "dependencies.pth").write_text("\n".join(there))
    done = subprocess.run(
        [place / "bin" / "harmonylite", "config", "init", "-"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={},
    )
    assert "db_path" in done.stdout
    shown = "import harmonylite, harmonylite.web.page as p; print(harmonylite.__file__, len(p.page_html()))"
    done = subprocess.run([python, "-c", shown], capture_output=True, text=True, check=True, cwd=tmp_path, env={})
    file, size = done.stdout.split()
    assert Path(file).is_relative_to(place)
    assert int(size) > 40_000
