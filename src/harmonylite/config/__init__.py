"""The configuration: its sections, and how it is read, checked and written.

Invariant: `Settings` is frozen, complete and valid; one `ConfigError` reports everything that is wrong.
"""

from harmonylite.config.checks import notes
from harmonylite.config.kinds import NODE_ID
from harmonylite.config.load import DEFAULT_FILE, load, load_all, secrets
from harmonylite.config.nats import NatsSettings
from harmonylite.config.secret_text import MASK, Url, names_secret, redact
from harmonylite.config.settings import (
    HealthCheckSettings,
    LoggingSettings,
    PrometheusSettings,
    ReplicationLogSettings,
    Settings,
    TablesSettings,
)
from harmonylite.config.snapshot import SnapshotSettings
from harmonylite.config.write import effective, reference, template

__all__ = [
    "DEFAULT_FILE",
    "MASK",
    "NODE_ID",
    "HealthCheckSettings",
    "LoggingSettings",
    "NatsSettings",
    "PrometheusSettings",
    "ReplicationLogSettings",
    "Settings",
    "SnapshotSettings",
    "TablesSettings",
    "Url",
    "effective",
    "load",
    "load_all",
    "names_secret",
    "notes",
    "redact",
    "reference",
    "secrets",
    "template",
]
