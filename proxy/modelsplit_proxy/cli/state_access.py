"""The state file as the command line opens it: beside a running proxy, and as its user or root.

It is another process's file. So it is neither migrated nor checked nor set aside here, only
read and added to; a proxy that is not there yet is given a new file of its own.
"""

from __future__ import annotations

import os
import pwd
import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Final

from modelsplit_proxy.runtime.disk_trouble import is_read_only
from modelsplit_proxy.storage.migrations import SCHEMA_VERSION
from modelsplit_proxy.storage.state_file import FILE_NAME, StoreError, open_state, what_hinders

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from modelsplit_proxy.runtime.clock import Clock

# A proxy holds the lock for milliseconds, a backup for longer.
_BUSY_S: Final = 5.0


@contextmanager
def writing(directory: Path, clock: Clock) -> Iterator[sqlite3.Connection]:
    """One transaction, committed at the end; the file is made if there is none. StoreError."""
    path = directory / FILE_NAME
    with _explained(path):
        if not path.exists():
            open_state(directory, clock).db.close()
            _give_to_owner(path)
        with closing(_connect(path)) as db:
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")


@contextmanager
def reading(directory: Path) -> Iterator[sqlite3.Connection | None]:
    """One look at the file, all of one moment; None if there is no file. StoreError."""
    path = directory / FILE_NAME
    with _explained(path):
        if not path.exists():
            yield None
            return
        with closing(_connect(path)) as db:
            db.execute("BEGIN")
            yield db


def is_there(directory: Path) -> bool:
    """Whether there is a state file in it; StoreError if that cannot be seen."""
    path = directory / FILE_NAME
    with _explained(path):
        return path.exists()


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=_BUSY_S, isolation_level=None
    )
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version != SCHEMA_VERSION:
        db.close()
        raise StoreError(other_schema(path, version))
    # What is approved must not be forgotten by a machine that loses power.
    db.execute("PRAGMA synchronous = FULL")
    return db


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise StoreError(not_ours(path)) from error
    except OSError as error:
        why = what_hinders(error, path)
        raise StoreError(f"the state file {path} cannot be used: {why}") from error
    except sqlite3.Error as error:
        why = what_hinders(error, path)
        effective = os.access in os.supports_effective_ids
        may = path.exists() and os.access(path, os.R_OK | os.W_OK, effective_ids=effective)
        if path.exists() and not may and not is_read_only(path):
            raise StoreError(not_ours(path)) from error
        raise StoreError(f"the state file {path} cannot be used: {why or error}") from error


def other_schema(path: Path, version: int) -> str:
    """Which schema the file has, and who can read it."""
    text = f"the state file {path} is of schema {version}, this modelsplit reads {SCHEMA_VERSION}"
    if version > SCHEMA_VERSION:
        return f"{text}: a later modelsplit has written it, use that one"
    return f"{text}; `modelsplit serve` brings older files forward, until then use what wrote it"


def not_ours(path: Path) -> str:
    """Whose it is, as far as that can be seen, and what to do about it."""
    owner = _owner(path)
    named = "the user of the service" if owner is None else f"the user {owner}"
    text = f"the state file {path} may only be opened by {named}, or by root: repeat it with sudo"
    # A user of systemd's DynamicUser cannot reach the directory outside its service.
    return text if owner in {None, "root"} else f"{text} (or sudo -u {owner})"


def _owner(path: Path) -> str | None:
    for place in (path, path.parent):
        try:
            return pwd.getpwuid(place.stat().st_uid).pw_name
        except (OSError, KeyError):
            continue
    return None


def _give_to_owner(path: Path) -> None:
    """A file that root made belongs to whom the directory belongs to: the service must open it."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
            if (place := path.with_name(name)).exists():
                os.chown(place, owner.st_uid, owner.st_gid)
