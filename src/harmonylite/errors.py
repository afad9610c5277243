"""Every error that HarmonyLite raises on purpose.

Invariant: an error says what was being done, to which object, what went wrong and what a person can do, and never
carries a secret. Adapters map foreign errors to these once, at their edge.
"""

import errno

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""The system's errors of a full disk, which passes: what meets one waits and says so."""
OVERWRITTEN = (
    "a program wrote the file as a whole, without SQLite's locks, as sql.js does, cp or mv; what it wrote counts as the"
    " application's, and what others committed since it had read the file comes back from the cluster where it was"
    " published. Let such a program open a copy, or stop application and node first (docs/compatibility.md)"
)


class HarmonyLiteError(Exception):
    """Base of all errors of this package.

    ``message``: lower case, names the object and the numbers. ``advice``: what the operator can do, or "".
    ``exit_code``: what the command line ends with when the error reaches it.
    """

    exit_code = 1

    def __init__(self, message: str, *, advice: str = "") -> None:
        super().__init__(f"{message}; {advice}" if advice else message)
        self.message = message
        self.advice = advice


class ConfigError(HarmonyLiteError):
    """The configuration or the command line can't be used; nothing was started."""

    exit_code = 2


class NotRunningError(HarmonyLiteError):
    """A command needs the running node of this database and found none."""

    exit_code = 3


class NotAnsweringError(HarmonyLiteError):
    """The node of this database runs, and does not answer a command: it is starting, stopping, busy or frozen."""

    exit_code = 12


class VerifyError(HarmonyLiteError):
    """Database, mirror or nodes differ, or a known node did not answer."""

    exit_code = 4


class DatabaseError(HarmonyLiteError):
    """The database or the mirror can't be read or written."""

    exit_code = 5


class DatabaseBusyError(DatabaseError):
    """Another connection holds the write lock; retry later, nothing is lost."""


class DiskFullError(DatabaseError):
    """A disk that the node writes to is full; retry later, nothing is lost."""


class DefinitionError(DatabaseError):
    """A definition from outside is not the single CREATE statement that it claims to be."""


class OverdueError(DatabaseError):
    """Work on external data exceeded its deadline, or was cancelled; nothing of it is left."""

    def __init__(self, given_up: bool, seconds: float) -> None:
        super().__init__("the work was given up" if given_up else f"it took longer than {seconds:g} seconds")
        self.given_up = given_up


class RowRefusedError(DatabaseError):
    """SQLite refuses a row: the types, a constraint or an expression of its table; retrying does not help."""


class ReopenError(DatabaseError):
    """The files must be closed, checked and opened again; see its subclasses."""


class MirrorDamagedError(ReopenError):
    """The mirror file is missing parts or is not readable; it must be created again from a snapshot or the stream."""


class DatabaseDamagedError(ReopenError):
    """A file is corrupt, or no SQLite file; opening the files again finds out which one, and heals it.

    ``file``: the one that a full check found to be damaged, "" if a check must find out.
    """

    def __init__(self, message: str, *, advice: str = "", file: str = "") -> None:
        super().__init__(message, advice=advice)
        self.file = file


class DatabaseEncryptedError(DatabaseError):
    """An SQLite file is encrypted, so the node can't read it. It is left in place."""

    def __init__(self, path: object) -> None:
        super().__init__(
            f"the database {path} is encrypted (SQLCipher, SQLite3MC or the like), or no SQLite file:"
            " a node reads plain files only",
            advice="leave the file where it is, nothing of it is damaged; set db_path to a plain file,"
            " which your application can make with sqlcipher_export() or PRAGMA rekey; encrypt the disk instead",
        )


class EncodingError(DatabaseError):
    """The database's text encoding differs from the cluster's: SQLite can't attach one file to the other.

    ``mine``, ``theirs``: as ``PRAGMA encoding`` names them.
    """

    def __init__(self, path: object, mine: str, theirs: str) -> None:
        super().__init__(
            f"the database {path} keeps its text in {mine}, the cluster in {theirs}: rows can't be merged between them",
            advice="stop the application, dump the file into a new one whose first statement is"
            f" PRAGMA encoding = '{theirs}' (see docs/operating.md, \"Text encodings\"; VACUUM keeps the old encoding),"
            " put the new file in the place of the old one, and start the node again",
        )


class DatabaseReplacedError(ReopenError):
    """The application's file was replaced, or went back to an earlier state, while the node ran."""


class DatabaseOverwrittenError(DatabaseReplacedError):
    """A program wrote the application's file as a whole, without SQLite's locks, while the node ran."""

    def __init__(self, path: object) -> None:
        super().__init__(f"the database {path} was overwritten while the node ran: {OVERWRITTEN}")


class StreamError(HarmonyLiteError):
    """JetStream refused or did not answer; the operation may be retried."""

    exit_code = 6


class ConnectError(StreamError):
    """No NATS server could be reached, or it refused the credentials."""


class ReconnectsSpentError(StreamError):
    """The connection to NATS was lost and ``connect_retries`` attempts to reconnect have failed."""

    exit_code = 7


class NotAcknowledgedError(StreamError):
    """A publish was not acknowledged: it may or may not be in the stream. Check before publishing again."""


class WrongLastSequenceError(StreamError):
    """The subject's last sequence is not the expected one: an earlier try succeeded, or another process publishes."""


class StreamFullError(StreamError):
    """A limit of the server, the account or the stream refuses the message; it is queued until there is room."""


class StreamGapError(StreamError):
    """The reader is behind the oldest kept message of a stream."""

    def __init__(self, message: str, *, shard: int, wanted: int, first: int, advice: str = "") -> None:
        super().__init__(message, advice=advice)
        self.shard = shard
        self.wanted = wanted
        self.first = first


class PositionError(HarmonyLiteError):
    """A reader's position is not in the streams: they keep less, are others, or end earlier."""

    exit_code = 14


class NotFoundError(HarmonyLiteError):
    """Something that a command names does not exist: a table, a node, a snapshot."""

    exit_code = 15


class WaitTimeoutError(HarmonyLiteError):
    """A wait timed out."""

    exit_code = 13


class StreamLostError(StreamError):
    """A stream was deleted, created again, or lost its tail: stored positions don't belong to it."""


class OtherClusterError(StreamError):
    """NATS holds the streams of another cluster than the one that this database belongs to."""


class MirrorDeviatesError(HarmonyLiteError):
    """This node's mirror differs from what the stream gives; most other nodes agree on another one."""


class PassedError(HarmonyLiteError):
    """Nodes with this node's schema have passed a change set that needs another one.

    It continues from where they are.
    """


class FencedError(HarmonyLiteError):
    """Another process publishes under this node's id."""

    exit_code = 8


class NotPausedError(HarmonyLiteError):
    """The node is not paused at the message that it was asked to leave out."""


class NotUndoneError(HarmonyLiteError):
    """A message that was left out can't be applied after all; nothing was changed."""


class ChangedSinceError(HarmonyLiteError):
    """An overruled value can't be put back: the value that replaced it was written again, or its row is gone."""


class SchemaWaitError(HarmonyLiteError):
    """A change set needs a table or column that this node's database does not have (yet).

    ``shard``, ``seq``: the change set's last message, 0 where a snapshot needs it; ``unsure``: a column that the node
    had, and that a migration removed or renamed.
    """

    def __init__(self, message: str, *, shard: int = 0, seq: int = 0, unsure: bool = False, advice: str = "") -> None:
        super().__init__(message, advice=advice)
        self.shard = shard
        self.seq = seq
        self.unsure = unsure


class PoisonError(HarmonyLiteError):
    """A message of the stream can't be understood, or applied; the node pauses before it and names it.

    ``refused``: SQLite refuses a row of it, which another schema may accept.
    """

    def __init__(self, message: str, *, shard: int, seq: int, refused: bool = False, advice: str = "") -> None:
        super().__init__(message, advice=advice)
        self.shard = shard
        self.seq = seq
        self.refused = refused


class SnapshotError(HarmonyLiteError):
    """A snapshot can't be written, found, read or trusted."""

    exit_code = 9


class ObjectMissingError(SnapshotError):
    """The store answered and does not have the object; retrying does not help."""


class SnapshotDamagedError(SnapshotError):
    """The stored object is truncated, altered or unreadable; retrying does not help."""


class SnapshotRefusedError(SnapshotDamagedError):
    """A snapshot arrived undamaged, but this node can't continue from it: retrying does not help."""


class SnapshotRoomError(SnapshotError):
    """The disk has no room for a snapshot; a smaller one may fit."""


class ForeignError(HarmonyLiteError):
    """Bytes from another node, a store, NATS or a file are malformed; nothing was done.

    The caller maps it to its meaning there: an absent pointer, an empty answer.
    """


class EmbeddedServerError(HarmonyLiteError):
    """The embedded nats-server can't be found, started or configured."""

    exit_code = 10


def leaves(error: BaseException) -> list[BaseException]:
    """Return the single errors of a group of groups, in their order; a single error is its own only leaf."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for each in error.exceptions for leaf in leaves(each)]
