"""The state file as it is opened: private, whole, and of a schema we know.

A damaged file is never used and never deleted: it is set aside under a name that says what
it is and when, and a new one begins. That loses what the old one had counted, so the new
file remembers it (``lost_at``): whoever counts must not start from zero as if nothing had
been used.

The check for damage reads the whole file, so it is bounded in time: ``_CHECK_S`` seconds,
enough for about 1 GiB on a fast disk. What could not be read by then is told (``checked``)
and served all the same; SQLite notices damage there when it comes upon it.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import stat
import threading
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from modelsplit_proxy.runtime.disk_trouble import explained, hindrance
from modelsplit_proxy.storage.migrations import MIGRATIONS, SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from modelsplit_proxy.runtime.clock import Clock

logger = logging.getLogger("modelsplit")

FILE_NAME: Final = "modelsplit.sqlite3"
_BESIDE: Final = ("", "-wal", "-shm")
_MAGIC: Final = b"SQLite format 3\0"
_CHECK: Final = "PRAGMA quick_check(1)"
_CHECK_S: Final = 2.0
# An interrupt that comes between two statements is lost.
_INTERRUPT_AGAIN_S: Final = 0.05
# How long the start waits for another process that holds the file, before it goes on without.
_START_BUSY_MS: Final = 1000
_READ_MAX_S: Final = 10.0
# Steps of SQLite's machine between two looks at the clock; some milliseconds.
_PROGRESS_EVERY: Final = 100_000
_LOST_AT: Final = "counts_lost_at"
_SET_ASIDE_AS: Final = "set_aside_as"
# What may be over in a moment; other errors are somebody's mistake.
_PASSING: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PROTOCOL,
    }
)
_PASSING_ERRNO: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EMFILE, errno.ENFILE}
)
_HINDERED: Final = frozenset(
    {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR}
)
_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class StoreError(Exception):
    """The state file cannot be used. The text says which file, why, and what to do."""


class NoStateError(StoreError):
    """There is no state file where somebody says that there is one."""


class StateTroubleError(StoreError):
    """It cannot be used now, for a reason that may pass: a lock, a full disk."""


class _DamagedError(Exception):
    """The file is no database, or not a whole one. The text is SQLite's."""


@dataclass(frozen=True, slots=True)
class StateFile:
    """An open state file. ``db``: in autocommit mode, to be used by one thread at a time.

    ``set_aside``: where this start put a damaged predecessor. ``lost_at``: the wall time of
    the latest such loss that this file knows of, at this start or an earlier one.
    ``checked``: whether the check at the start came to its end.
    """

    path: Path
    db: sqlite3.Connection
    set_aside: Path | None
    lost_at: float | None
    checked: bool


def open_state(
    directory: Path,
    clock: Clock,
    *,
    busy_ms: int = _START_BUSY_MS,
    before: Callable[[], object] | None = None,
) -> StateFile:
    """Open the state file, making, mending its modes, migrating or replacing it as needed.

    ``busy_ms``: how long to wait for another process's transaction. ``before``: called when
    the directory is there and before the file is looked at; it may raise OSError or
    StoreError. Raises StateTroubleError where it may be possible later; StoreError where it is
    not, or the file is of a later modelsplit.
    """
    path = directory / FILE_NAME
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if before is not None:
            before()
        if not path.exists():
            _create(path, {})
        moved = None
        try:
            db, checked = _sound(path, busy_ms)
        except _DamagedError as damage:
            moved = _replace(path, damage, clock.wall())
            db, checked = _sound(path, busy_ms)
        return StateFile(path, db, moved, _fact(db, _LOST_AT), checked)
    except (OSError, sqlite3.Error, _DamagedError) as error:
        why = what_hinders(error, path)
        text = f"the state file {path} cannot be used: {why or error}"
        if _may_pass(error):
            raise StateTroubleError(text) from error
        away = "" if why else " or move the file away"
        raise StoreError(f"{text}; give another directory with --state{away}") from error


def _connect_read_only(path: Path) -> sqlite3.Connection:
    """A connection that cannot write, for one reader; raises sqlite3.Error.

    SQLite makes files beside the one it reads. Where it may not, as of a copy on a read-only
    mount, and nobody has the file open, it need not either.
    """
    effective = os.access in os.supports_effective_ids
    sealed = not os.access(path.parent, os.W_OK, effective_ids=effective)
    still = sealed and not path.with_name(f"{path.name}-wal").exists()
    words = "mode=ro&immutable=1" if still else "mode=ro"
    return sqlite3.connect(f"{path.absolute().as_uri()}?{words}", uri=True, timeout=1.0)


def read(path: Path, clock: Clock, query: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
    """The rows of one query on a connection of its own. Blocks on disk.

    Raises StoreError if the file cannot be read or that takes more than 10 s.
    """
    end = clock.now() + _READ_MAX_S
    try:
        with closing(_connect_read_only(path)) as db:
            db.set_progress_handler(lambda: clock.now() > end, _PROGRESS_EVERY)
            return db.execute(query, values).fetchall()
    except sqlite3.Error as error:
        raise StoreError(f"the state file {path} cannot be read: {error}") from error


def what_hinders(error: Exception, path: Path) -> str:
    """Why the machine lets nobody use the file, and what to do; empty: it is the file's own fault.

    SQLite does not say which: a file that may not be written is one where no file may be made.
    """
    if isinstance(error, OSError):
        return explained(error, path)
    code = primary_code(error) if isinstance(error, sqlite3.Error) else -1
    if code == sqlite3.SQLITE_FULL:
        return explained(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), path)
    cause = hindrance(path.parent) if code in _HINDERED else None
    return "" if cause is None else explained(cause, path.parent)


def _may_pass(error: Exception) -> bool:
    if isinstance(error, sqlite3.Error):
        return primary_code(error) in _PASSING
    return isinstance(error, OSError) and error.errno in _PASSING_ERRNO


def _replace(path: Path, damage: _DamagedError, wall: float) -> Path:
    """Set the damaged file aside and begin a new one that knows of it; where the old one is."""
    aside = _name_aside(path, wall)
    new = _prepare(path, {_LOST_AT: wall, _SET_ASIDE_AS: aside.name})
    _say_damaged(path, aside, damage)
    for old, name in zip(_beside(path), _beside(aside), strict=True):
        if old.exists():
            old.rename(name)
    new.rename(path)
    return aside


def _create(path: Path, facts: Mapping[str, Any]) -> None:
    _prepare(path, facts).rename(path)


def _prepare(path: Path, facts: Mapping[str, Any]) -> Path:
    """A new file under another name: it must appear whole, for an empty one is damaged."""
    new = path.with_name(f"{path.name}.new-{os.getpid()}")
    new.unlink(missing_ok=True)
    os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with closing(sqlite3.connect(new, isolation_level=None)) as db:
        _migrate(db, new)
        db.executemany("INSERT INTO facts VALUES (?, ?)", list(facts.items()))
    return new


def _make_private(path: Path) -> None:
    """The file is its owner's alone; SQLite gives ``-wal`` and ``-shm`` the same mode."""
    for name in _beside(path):
        if name.exists() and stat.S_IMODE(name.stat().st_mode) != 0o600:
            name.chmod(0o600)


def _look(path: Path) -> None:
    """_DamagedError if SQLite should not even open it: it would throw the log beside it away."""
    with path.open("rb") as file:
        begin = file.read(len(_MAGIC))
    if begin != _MAGIC:
        raise _DamagedError("file is not a database" if begin else "file is empty")


def _sound(path: Path, busy_ms: int) -> tuple[sqlite3.Connection, bool]:
    """Connect, check and migrate; _DamagedError if it is not the whole database it was."""
    _make_private(path)
    _look(path)
    with ExitStack() as undo:
        try:
            db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            undo.callback(db.close)
            db.execute(f"PRAGMA busy_timeout = {busy_ms}")
            checked = _check(db)
            _migrate(db, path)
        except sqlite3.DatabaseError as error:
            if primary_code(error) not in _DAMAGE:
                raise
            raise _DamagedError(str(error)) from error
        undo.pop_all()
    return db, checked


def _check(db: sqlite3.Connection) -> bool:
    """True: all of it is well. False: as much as could be read in time is."""
    with _interrupted_after(_CHECK_S, db):
        try:
            (verdict,) = db.execute(_CHECK).fetchone()
        except sqlite3.OperationalError as error:
            if primary_code(error) != sqlite3.SQLITE_INTERRUPT:
                raise
            return False
    if verdict != "ok":
        raise _DamagedError(str(verdict).replace("\n", " ")[:200])
    return True


@contextmanager
def _interrupted_after(limit_s: float, db: sqlite3.Connection) -> Iterator[None]:
    """Interrupt what ``db`` runs when the time is over, and whatever it runs after that."""
    done = threading.Event()

    def interrupt() -> None:
        done.wait(limit_s)
        while not done.is_set():
            db.interrupt()
            done.wait(_INTERRUPT_AGAIN_S)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"the state file {path} was written by a later modelsplit (schema "
            f"{version}, this one knows {SCHEMA_VERSION}); upgrade or use another --state"
            f"{_way_back(path)}"
        )
    if version == SCHEMA_VERSION:
        return
    if version:
        copy = _keep_copy(db, path, version)
        logger.info(
            "the state file %s is brought from schema %d to %d; a copy of before stays as %s",
            *(path, version, SCHEMA_VERSION, copy.name),
        )
    _allow_shrinking(db)
    db.execute("PRAGMA journal_mode = WAL")
    for number in range(version, SCHEMA_VERSION):
        with db:
            db.execute("BEGIN IMMEDIATE")
            for statement in MIGRATIONS[number]:
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {number + 1}")


def copy_of(path: Path, version: int) -> Path:
    """Where a state file is kept as it was at this schema, from before it was brought forward."""
    return path.with_name(f"{path.name}.schema-{version}")


def _way_back(path: Path) -> str:
    """What else is possible where a copy of our schema was kept; empty: none was."""
    copy = copy_of(path, SCHEMA_VERSION)
    if not copy.exists():
        return ""
    return f", or go back to how it was before the upgrade: {copy} in its place"


def _keep_copy(db: sqlite3.Connection, path: Path, version: int) -> Path:
    """Copy the whole file, and let go of copies of earlier upgrades. Raises OSError, sqlite3.Error.

    A copy appears under its name only when it is whole.
    """
    copy = copy_of(path, version)
    new = copy.with_name(f"{copy.name}.new")
    new.unlink(missing_ok=True)
    os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with closing(sqlite3.connect(new)) as target:
        db.backup(target)
    new.rename(copy)
    for other in path.parent.glob(f"{path.name}.schema-*"):
        if other != copy:
            other.unlink()
    return copy


def _allow_shrinking(db: sqlite3.Connection) -> None:
    """Let pages of deleted rows be given back to the disk in small steps later.

    Free for a new file; one that has tables already must be rewritten once.
    """
    if db.execute("PRAGMA auto_vacuum").fetchone() == (2,):
        return
    db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    if db.execute("SELECT count(*) FROM sqlite_master").fetchone() != (0,):
        db.execute("VACUUM")


def _name_aside(path: Path, wall: float) -> Path:
    """A name that says what it is and when; with ``-wal`` behind it, its log's."""
    when = datetime.fromtimestamp(wall, UTC).strftime("%Y%m%dT%H%M%SZ")
    aside = path.with_name(f"{path.name}.corrupt-{when}")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.corrupt-{when}.{number}")
    return aside


def _say_damaged(path: Path, moved: Path, damage: _DamagedError) -> None:
    logger.error(
        "THE STATE FILE %s IS DAMAGED (%s): it is kept as %s and a new one begins; records and "
        "budget counts of the old one are not in use",
        path,
        damage,
        moved.name,
    )


def _fact(db: sqlite3.Connection, name: str) -> Any:
    with closing(db.execute("SELECT value FROM facts WHERE name = ?", (name,))) as cursor:
        row = cursor.fetchone()
    return None if row is None else row[0]


def _beside(path: Path) -> list[Path]:
    return [path.with_name(path.name + end) for end in _BESIDE]


def primary_code(error: sqlite3.Error) -> int:
    """SQLite's result code without its details; -1 where the error is Python's own."""
    code: int = getattr(error, "sqlite_errorcode", -1)
    return code & 0xFF if code >= 0 else -1
