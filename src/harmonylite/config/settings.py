"""The whole configuration: the top of the file and the small sections.

Invariant: a `Settings` object is complete and valid; nothing reads the file, the environment or flags a second time.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import ClassVar, Literal

from harmonylite.config.kinds import (
    POLLING_MS,
    DatabasePath,
    HostNames,
    HttpAddress,
    HttpPath,
    Identity,
    MetricName,
    Milliseconds,
    NodeId,
    OptionalName,
    OptionalSubject,
    PollingInterval,
    Texts,
)
from harmonylite.config.nats import NatsSettings
from harmonylite.config.secret_text import Secret
from harmonylite.config.section import Section, key
from harmonylite.config.snapshot import SnapshotSettings
from harmonylite.schema.names import HELPERS

Conflict = Literal["column", "row"]

ALLOWED_HOSTS = (
    "Further names in the Host header that this server answers for, without port. On 127.0.0.1 it answers for "
    "localhost and its own address only, so that no web page reaches it under a name of its own (DNS rebinding)."
)


class ReplicationLogSettings(Section):
    """The shared history: JetStream streams that carry the change sets."""

    shards: int = key(
        1,
        "How many streams the rows are divided over; the same on every node, fixed once streams exist.",
        ge=1,
        le=1024,
    )
    max_entries: int = key(
        65_536,
        "Messages that each stream keeps. A node that was away for longer than these last takes a snapshot.",
        zero="0: all, until the disk is full",
        ge=0,
    )
    wait_for_snapshot: bool = key(
        True,
        "Publish no further than the newest snapshot allows, so that a stream never forgets what a new node needs; "
        "false: rather let it forget than wait, for example while the store is out of reach.",
    )
    replicas: int = key(
        0,
        "On how many NATS servers each stream is kept; 3 survives the loss of one.",
        zero="0: on as many as there are, at most 3; raised by itself when servers join, never lowered",
        ge=0,
        le=5,
    )
    compress: bool = key(True, "Compress change sets with zstd.")
    update_existing: bool = key(False, "Change a stream that exists with other settings; otherwise that is reported.")


class LoggingSettings(Section):
    """The log, on standard error."""

    verbose: bool = key(False, "Also log debug messages. Flag: -verbose.")
    format: Literal["console", "json"] = key(
        "console", "Lines for a person, or one JSON object a line, with each value of a message as a field."
    )


class PrometheusSettings(Section):
    """Metrics at `/metrics`."""

    enable: bool = key(False, "Serve metrics.")
    bind: HttpAddress = key(
        "127.0.0.1:3010",
        "Where to listen, as host:port; the same as `health_check.bind` is fine.",
        zero="Port 0: the system chooses one, and the log names it",
    )
    allowed_hosts: HostNames = key(
        (), ALLOWED_HOSTS, zero="Empty: no more; a server that other machines reach answers for every name"
    )
    namespace: MetricName = key("harmonylite", "First part of every metric's name.", zero="Empty: none")
    subsystem: MetricName = key("", "Second part of every metric's name.", zero="Empty: none")


class FeedSettings(Section):
    """The change feed on NATS: an event for each changed row, on `subject` and the table's name."""

    subject: OptionalSubject = key(
        "",
        "First part of the subjects: changes of table `orders` come on `SUBJECT.orders`. Of the nodes that have this "
        "key, one at a time publishes.",
        zero="Empty: none",
    )
    stream: OptionalName = key(
        "",
        "JetStream stream that keeps the events; it is made where it is missing.",
        zero="Empty: make one yourself, with the subject `SUBJECT.>`; the node waits until there is one",
    )
    max_events: int = key(
        1_000_000,
        "Events that `stream` keeps when it is made; the oldest go.",
        zero="0: all, until the disk is full",
        ge=0,
    )


class VerifySettings(Section):
    """Anti-entropy: compares database, mirror and nodes periodically, and repairs what differs."""

    interval: Milliseconds = key(
        86_400_000,
        "How often to compare; the node waits for a moment without writes.",
        unit='milliseconds, or a text such as "6h"',
        zero="0: only on `harmonylite verify`",
        ge=0,
    )


class MergeSettings(Section):
    """How rows of other nodes are merged into the database."""

    patience: Milliseconds = key(
        100,
        "The longest wait for the transactions that other processes have open before the node commits to the database.",
        unit='milliseconds, or a text such as "250ms"',
        zero="0: don't wait",
        ge=0,
        le=10_000,
    )
    real_digits: Literal[0, 15, 17] = key(
        0,
        "Digits of a real number that becomes text in an index, a generated column or a trigger: 15 as in SQLite "
        "libraries before 3.53, 17 as in later ones.",
        zero="0: as in the library that wrote the file last",
    )


class HealthCheckSettings(Section):
    """Health at `path`, and `/livez` and `/readyz`."""

    enable: bool = key(False, "Serve health.")
    bind: HttpAddress = key(
        "127.0.0.1:8090", "Where to listen, as host:port.", zero="Port 0: the system chooses one, and the log names it"
    )
    allowed_hosts: HostNames = key(
        (), ALLOWED_HOSTS, zero="Empty: no more; a server that other machines reach answers for every name"
    )
    path: HttpPath = key("/health", "Path of the health check.")
    detailed: bool = key(True, "Also report lag, pending rows and reasons, and serve a page at `/`.")


class PageSettings(Section):
    """The page at `/` of `health_check.bind`, where `health_check.detailed` is true."""

    token: Secret = key(
        Secret(""),
        "Who gives it sees the page from elsewhere, and may save a snapshot, compare the nodes and put an overruled "
        "value back. At least 16 characters.",
        zero="Empty: from elsewhere the page shows no values, and nothing can be done from it",
    )
    open: bool = key(
        True,
        "Requests of this machine see the whole page without the token, values of rows included; false: only with it.",
    )
    url: str = key(
        "",
        "Where the other nodes' pages link to, such as `https://db-1.example/`.",
        zero="Empty: where it listens",
    )


class TablesSettings(Section):
    """Which tables are replicated, and how conflicts in them are resolved."""

    include: Texts = key(("*",), "Names or patterns (`*`, `?`, `[abc]`) of tables to replicate.")
    exclude: Texts = key(
        (),
        "Names or patterns of tables to leave alone; stronger than `include`. Tables that other programs keep for "
        "their own sake are left alone, too, unless `include` names them by more than `*`: "
        + ", ".join(f"`{each}`" for each in HELPERS)
        + ".",
    )
    conflict: dict[str, Conflict] = key(
        {},
        "A table by name or pattern, and what is settled as a whole when two nodes change one row: each `column` "
        "by itself, or the whole `row`. Where several patterns fit, `row` wins; everything else is `column`.",
        example='[tables.conflict]\norders = "row"\n"ledger_*" = "row"',
    )
    identity: dict[str, Identity] = key(
        {},
        "A table with a counted key by name or pattern, and the columns that identify its records: a number that "
        "another node took meanwhile is no conflict, the row gets the next free one, and the same record written "
        "twice is one. Known migration tools' tables have theirs (docs/migration-tools.md). Where several patterns "
        'fit, the first one counts. Also spelled `[tables.NAME]` with `identity = ["app", "name"]`.',
        example='[tables.identity]\nbook_tags = ["book_id", "tag_id"]',
    )


class ExtensionsSettings(Section):
    """What tables need that the application adds to its SQLite connections: collations, functions, modules."""

    load: Texts = key(
        (),
        "SQLite extensions to load, in this order: files, or names that the system's loader finds (`mod_spatialite`).",
    )
    python: str = key(
        "",
        "A function that is called with each new connection (apsw.Connection) and gives it what it needs, as "
        '"package.module:function"; "harmonylite.extensions:geopackage" has the functions of a GeoPackage.',
    )


class SchemaSettings(Section):
    """How schema changes of other nodes are applied."""

    apply: Literal["all", "additive", "none"] = key(
        "all",
        "`all`: what another node changes in its schema is changed here, before the rows that need it. `additive`: "
        "only new tables, columns, indexes, views, triggers, `user_version` and `application_id` are, and sent; what "
        "removes, renames or rebuilds waits for `harmonylite schema accept` on this node, or for its own migration. "
        "`none`: everything waits for that. The same on every node.",
    )


class Settings(Section):
    """The database and the node itself."""

    db_path: DatabasePath = key(
        ...,
        "The SQLite file to replicate. Private files go to `mirror/` and `nats/` beside it, so its folder must be "
        "on a disk that lasts.",
        example='db_path = "app.db"',
    )
    node_id: NodeId = key(
        "",
        "Name of this node, different on every node: letters, digits, - and _, at most 64. Flag: -node-id.",
        zero="Empty or 0: made once and kept beside the database",
    )
    publish: bool = key(True, "Send local changes to the other nodes; false makes this a read replica.")
    replicate: bool = key(True, "Apply the other nodes' changes here; false makes this a source only.")
    capture_batch_rows: int = key(
        512,
        "Rows that capture reads in one step; a transaction may have any size.",
        ge=1,
        also="scan_max_changes",
    )
    checkpointer: bool = key(
        True,
        "Copy the database's write-ahead log into the file beside the application, so that its commits need not; "
        "false: leave that to SQLite, within commits.",
    )
    cleanup_interval: Milliseconds = key(
        5000,
        "How often to clean the change log up while the application rests: to delete entries that name no pending row.",
        unit='milliseconds, or a text such as "5s"',
        zero="0: only with other nodes' changes, after a thousand of its own, and when it stops",
        ge=0,
    )
    sleep_timeout: Milliseconds = key(
        0,
        "Stop the node after this long without a change; it publishes everything and saves a snapshot first.",
        unit='milliseconds, or a text such as "15m"',
        zero="0: stay up",
        ge=0,
    )
    polling_interval: PollingInterval = key(
        POLLING_MS,
        "How often to look for commits besides the system's events; some network and container file systems report "
        "none.",
        unit='milliseconds, or a text such as "1s"',
        zero=f"0: {POLLING_MS}",
        ge=0,
    )
    seq_map_path: str = key(
        "", "Has no effect: the databases hold the positions. Accepted so that existing files work."
    )
    snapshot: SnapshotSettings = SnapshotSettings()
    replication_log: ReplicationLogSettings = ReplicationLogSettings()
    nats: NatsSettings = NatsSettings()
    tables: TablesSettings = TablesSettings()
    extensions: ExtensionsSettings = ExtensionsSettings()
    schema: SchemaSettings = SchemaSettings()
    logging: LoggingSettings = LoggingSettings()
    prometheus: PrometheusSettings = PrometheusSettings()
    health_check: HealthCheckSettings = HealthCheckSettings()
    page: PageSettings = PageSettings()
    merge: MergeSettings = MergeSettings()
    feed: FeedSettings = FeedSettings()
    verify: VerifySettings = VerifySettings()

    _name: ClassVar[str] = ""
    _beside: ClassVar[tuple[Path, ...]] = ()

    @property
    def name(self) -> str:
        """What this database is called among several of one process, "" where it is the only one."""
        return self._name

    @property
    def beside(self) -> tuple[Path, ...]:
        """The files of all databases of the process, in their order."""
        return self._beside or (self.db_path,)

    def named(self, name: str, beside: tuple[Path, ...]) -> Settings:
        """Return these settings for the database called ``name``, one of the files ``beside``."""
        found = copy.copy(self)
        vars(found).update(_name=name, _beside=beside)
        return found

    @property
    def snapshot_bucket(self) -> str:
        """The object store's bucket: as configured, else named after the streams."""
        return self.snapshot.nats.bucket or f"{self.nats.stream_prefix}-snapshots"
