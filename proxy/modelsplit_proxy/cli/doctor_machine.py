"""This machine, as ``modelsplit doctor`` sees it: SQLite, clock, state directory, policy file."""

from __future__ import annotations

import errno
import os
import shlex
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from modelsplit_policy.config.problems import PolicyError
from modelsplit_proxy.cli.doctor_findings import Finding, Unseen
from modelsplit_proxy.config import policy_file
from modelsplit_proxy.runtime import disk_trouble, extras, local_time
from modelsplit_proxy.storage.migrations import SCHEMA_VERSION
from modelsplit_proxy.storage.state_file import FILE_NAME, StoreError, read

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from modelsplit_proxy.cli.doctor_findings import Look

# The first with JSON functions in every build (migrations read JSON) and UPSERT.
OLDEST_SQLITE: Final = (3, 38, 0)
# File systems whose locks or write-ahead log SQLite cannot rely on.
_NETWORK: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "fuse.sshfs", "afs"}
)
_FREE_BYTES: Final = 256 * 2**20
# Nobody runs this before it was written.
_EARLIEST: Final = datetime(2025, 1, 1, tzinfo=UTC).timestamp()
# What clocks may differ by without a word.
_CLOCK_S: Final = 60.0
_ESCAPES: Final = (("\\040", " "), ("\\011", "\t"), ("\\134", "\\"))


def sqlite(look: Look) -> Iterator[Finding | Unseen]:
    """Whether the library is one that migrations and records run on."""
    del look
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        oldest = ".".join(map(str, OLDEST_SQLITE))
        yield Finding(
            "SQLite",
            f"SQLite {sqlite3.sqlite_version} is older than {oldest}: state files cannot be read",
            "uv tool install --python 3.12 modelsplit   # a Python with a newer SQLite",
        )


def policy(look: Look) -> Iterator[Finding | Unseen]:
    """Whether the policy file can be used."""
    try:
        path = policy_file.find_policy(look.settings.policy, look.environ)
        policy_file.load(path)
    except PolicyError as error:
        # One file, one finding: the command tells them all.
        first, *others = str(error).splitlines()
        more = f" (and {len(others)} more)" if others else ""
        step = f"modelsplit check-config {shlex.quote(first.partition(': ')[0])}"
        yield Finding("policy", f"{first}{more}", step)


def clock(look: Look) -> Iterator[Finding | Unseen]:
    """Whether the wall clock was set back, or never set."""
    now = look.clock.wall()
    shown = _latest(look) or 0.0
    latest = max(_EARLIEST, now, shown)
    if latest - now > _CLOCK_S:
        before = "" if latest > shown else ", which it has shown before: it is wrong, or was then"
        yield Finding(
            "clock",
            f"the machine's clock is behind {local_time.minute_of(latest)}{before}; records are "
            "out of order until it is past that, budgets are not",
            "timedatectl set-ntp true && timedatectl",
        )


def _latest(look: Look) -> float | None:
    """The wall time of the latest call in the state file; None: unknown."""
    path = look.state / FILE_NAME
    try:
        if not path.exists():
            return None
        [(latest,)] = read(path, look.clock, "SELECT max(started_us) FROM calls", ())
    except (OSError, StoreError):
        return None
    return None if latest is None else float(latest) / 1e6


def state(look: Look) -> Iterator[Finding | Unseen]:
    """Whether the state directory can be written, has room and is no network disk."""
    place = disk_trouble.nearest(look.state)
    hindrance = disk_trouble.hindrance(look.state)
    if hindrance is not None:
        if look.stats is not None:
            # A service of another user has it, and is told apart by `stats`.
            yield from _ledger(look)
        else:
            yield _unwritable(look, place, hindrance)
        if hindrance.errno == errno.EROFS:
            return  # which need not have room
    try:
        told = os.statvfs(place)
    except OSError as error:
        yield Unseen("state", f"{place}: {error.strerror}")
        return
    free = told.f_bavail * told.f_frsize
    if free < _FREE_BYTES:
        yield Finding(
            "state",
            f"the disk of {look.state} has {free / 2**20:.0f} MiB left: records are lost when it "
            "is full",
            f"df -h {place} && du -sh {place}",
        )
    kind = _file_system(look, place)
    if kind in _NETWORK:
        serve = look.serve(instead={"--state": "/var/lib/modelsplit"})
        yield Finding(
            "state",
            f"{look.state} is on {kind}: SQLite's locks do not hold there, and budgets with them",
            f"{serve}   # a disk of this machine",
        )


def _unwritable(look: Look, place: Path, error: OSError) -> Finding:
    """Each reason with what mends it."""
    directory, typed = f"the state directory {look.state}", shlex.quote(str(place))
    elsewhere = look.serve(instead={"--state": "DIR"})
    if error.errno == errno.EROFS:
        cause = f"{directory} is on a file system that is read-only"
        return Finding("state", cause, f"findmnt -T {typed}   # or {elsewhere}")
    if error.errno == errno.ENOTDIR:
        return Finding("state", f"{directory} cannot be: {place} is a file", elsewhere)
    cause = f"{directory} cannot be written by this user"
    step = f"sudo chown -R $USER {typed}"
    if place != look.state:
        # What is above it, /var/lib for one, stays whose it is.
        step = f"sudo install -d -m 700 -o $USER {shlex.quote(str(look.state))}"
    return Finding("state", cause, f"{step}   # or {elsewhere}")


def _ledger(look: Look) -> Iterator[Finding]:
    """What the running proxy says of its own file."""
    told = (look.stats or {}).get("ledger")
    error = told.get("error") if isinstance(told, dict) else None
    if error:
        yield Finding("state", f"the running proxy cannot write its state: {error}", "df -h")


def schema(look: Look) -> Iterator[Finding | Unseen]:
    """Whether the state file is of this version, or one that this version brings forward."""
    path = look.state / FILE_NAME
    try:
        if not path.exists():
            return
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
    except (OSError, sqlite3.Error) as error:
        yield Unseen("state file", f"{path}: {error}; try with sudo")
        return
    if version > SCHEMA_VERSION:
        yield Finding(
            "state file",
            f"{path} is of schema {version}, this modelsplit knows {SCHEMA_VERSION}: a later one "
            "has written it",
            f"{extras.upgrading()}   # or serve with another --state",
        )


def _file_system(look: Look, place: Path) -> str:
    """The type of the file system that a directory is on; empty: unknown."""
    try:
        lines = (look.proc / "mounts").read_text().splitlines()
        place = place.resolve()
    except OSError:
        return ""
    found = ("", "")
    for line in lines:
        _, mounted, kind, *_ = line.split()
        for escape, character in _ESCAPES:
            mounted = mounted.replace(escape, character)
        if place.is_relative_to(mounted) and len(mounted) >= len(found[0]):
            found = (mounted, kind)
    return found[1]
