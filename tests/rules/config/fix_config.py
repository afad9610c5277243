"""Configurations for tests: a TOML text becomes settings, or the faults that are found in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from harmonylite.config import Settings, load
from harmonylite.errors import ConfigError

Loads = Callable[..., Settings]
Faults = Callable[..., list[str]]


@pytest.fixture
def loads(tmp_path: Path) -> Loads:
    """Return what makes settings of a TOML text, with a ``db_path`` in front unless ``bare``."""

    def make(
        text: str = "", overrides: Mapping[str, Any] | None = None, *, bare: bool = False, **environment: str
    ) -> Settings:
        file = tmp_path / "config.toml"
        file.write_text(text if bare else f'db_path = "{tmp_path}/app.db"\n{text}', encoding="utf-8")
        return load(file, overrides, environment=environment)

    return make


@pytest.fixture
def faults(loads: Loads, tmp_path: Path) -> Faults:
    """Return what gives the lines of the error that a TOML text causes, without the file's folder."""

    def tell(text: str = "", overrides: Mapping[str, Any] | None = None, **more: Any) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            loads(text, overrides, **more)
        lines = str(caught.value).replace(f"{tmp_path}/", "").splitlines()
        return [line.strip() for line in lines[1:]] if len(lines) > 1 else lines

    return tell
