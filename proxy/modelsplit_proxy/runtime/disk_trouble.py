"""Why a file cannot be read or written, and what to do about that very reason.

Another directory, other rights and more room are cures of different things: each error has its
own.
"""

from __future__ import annotations

import errno
import os
import pwd
import shlex
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

# What shows more of each.
_STEPS: Final = MappingProxyType(
    {
        errno.EROFS: "findmnt -T {}",
        errno.ENOSPC: "df -h {}",
        errno.EDQUOT: "quota -s",
        errno.EACCES: "ls -ld {}",
        errno.EPERM: "ls -ld {}",
    }
)


def explained(error: OSError, path: Path) -> str:
    """What hinders whoever wants ``path``, and the command that mends it or shows more."""
    place = nearest(path)
    why = error.strerror or str(error)
    if error.errno in {errno.ENOTDIR, errno.EEXIST} and not place.is_dir():
        return f"{place} is a file, not a directory"
    if error.errno == errno.ENOENT and place != path:
        return f"{why}: {place / path.relative_to(place).parts[0]}"
    if error.errno in {errno.EACCES, errno.EPERM}:
        why += f": {_owned(place)}"
    step = _STEPS.get(error.errno or 0)
    return why if step is None else f"{why}; see `{step.format(shlex.quote(str(place)))}`"


def drop_begun(path: Path, error: OSError) -> None:
    """Take away a new file that could not be written to its end: else it is in the next one's way.

    ``error``: what the writing ended in; only for want of room has anything been made.
    """
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        with suppress(OSError):
            path.unlink()


def hindrance(directory: Path) -> OSError | None:
    """What would keep this user from making a file in there, or in the nearest above that is there.

    None: nothing that can be seen without trying.
    """
    place = nearest(directory)
    if not place.is_dir():
        return OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    # Of a read-only file system root, too, is told that it may not.
    effective = os.access in os.supports_effective_ids
    if os.access(place, os.W_OK | os.X_OK, effective_ids=effective):
        return None
    number = errno.EROFS if is_read_only(place) else errno.EACCES
    return OSError(number, os.strerror(number))


def is_read_only(place: Path) -> bool:
    """Whether its file system is one that nobody may write to."""
    try:
        return bool(os.statvfs(place).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def nearest(path: Path) -> Path:
    """``path``, or the nearest above it that is there."""
    for place in (path, *path.parents):
        try:
            if place.exists():
                return place
        except OSError:
            continue
    return path


def _owned(place: Path) -> str:
    """Whose it is, and who is here."""
    try:
        return f"{place} is {_name(place.stat().st_uid)}'s, and this is {_name(os.geteuid())}"
    except OSError:
        return f"{place} is not for {_name(os.geteuid())}"


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
