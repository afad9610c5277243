"""What a machine lacks is said in one line, and only asked for where a run insists on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.needs import FORCED, SSHD, Need, left_out, programs


def test_one_line_counts_the_tests_of_each_reason() -> None:
    reasons = ["needs b (get b)", "needs a (get a)", "needs b (get b)"]
    assert left_out(reasons) == "not run here: 1 test: needs a (get a); 2 tests: needs b (get b)"
    assert left_out([]) == ""


def test_a_program_is_looked_for_on_the_path_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """/usr/sbin/sshd is often there, and on nobody's PATH: then this machine counts as one without."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert programs("sshd", package="openssh-server").missing == "apt-get install openssh-server"
    (tmp_path / "sshd").touch(0o755)
    assert programs("sshd", package="openssh-server").missing == ""


def test_a_run_that_insists_on_a_thing_fails_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = Need(SSHD.what, "get one")
    monkeypatch.setenv(FORCED, "chromium")
    with pytest.raises(pytest.skip.Exception, match=r"needs sshd \(get one\)"):
        lacking.skip()
    monkeypatch.setenv(FORCED, "sshd chromium")
    with pytest.raises(pytest.fail.Exception, match="needs sshd"):
        lacking.skip()
    Need("sshd", "").skip()
