"""One state directory, one process: a lock that the kernel keeps, and that names its holder.

The directory itself is locked (flock), so there is nothing to delete by mistake and nothing to
write on a full disk, and a process that is killed has let go. Who holds it is told by record
locks on a file in the directory: the kernel knows whose they are. A pid that was written down
could be a dead process's, and by now a stranger's.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import select
import signal
import struct
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from modelsplit_policy.quantity import in_digits
from modelsplit_proxy.storage import state_file
from modelsplit_proxy.storage.state_file import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("modelsplit")

FILE_NAME: Final = "modelsplit.lock"
# Record locks are on bytes: who has the first is the holder, who has the second is draining.
_HOLDER, _DRAINING = 0, 1
# From one try of what is done while the holder drains to the next.
_TRY_AGAIN_S: Final = 0.01
# Linux's struct flock: type, whence, start, length, pid.
_FLOCK: Final = "hhqqi"
# File systems, and kernels, that lock no directory.
_NO_LOCKS: Final = frozenset(
    {errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EOPNOTSUPP}
)


class StateBusyError(StoreError):
    """Another process serves from the state directory. The text names it and what to do.

    ``elsewhere``: a directory that would do instead, where the text ends in the advice to give
    another; None: it does not.
    """

    def __init__(self, text: str, elsewhere: Path | None = None) -> None:
        super().__init__(text)
        self.elsewhere = elsewhere


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has the lock. ``pid``: None where it cannot be seen from here, as in a container."""

    pid: int | None
    draining: bool


class StateLock:
    """The lock on one state directory. Released by ``release`` or by the end of the process."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._fd: int | None = None
        self._file_fd: int | None = None
        self._name_tag: int | None = None

    def take(self) -> None:
        """Take it, or keep it; the directory must be there. StateBusyError, OSError.

        Where directories cannot be locked it goes on without, after a warning.
        """
        if self._fd is not None:
            return
        self._fd = fd = _locked(self.directory)
        try:
            self._file_fd = _locked_where_the_file_lies(self.directory)
        except StateBusyError:
            self.release()
            raise
        # Without it the lock holds all the same; others cannot say who has it.
        with suppress(OSError):
            self._tag(fd)

    def say_draining(self) -> None:
        """Let others see that the process is on its way out: it need not be asked again."""
        if self._name_tag is not None:
            with suppress(OSError):
                fcntl.lockf(self._name_tag, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _DRAINING)

    def release(self) -> None:
        for fd in (self._name_tag, self._file_fd, self._fd):
            if fd is not None:
                os.close(fd)
        self._fd = self._file_fd = self._name_tag = None

    def _tag(self, directory: int) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._name_tag = os.open(FILE_NAME, flags, 0o600, dir_fd=directory)
        if os.geteuid() == 0:
            # A file that root made belongs to whom the directory belongs to.
            owner = os.fstat(directory)
            os.fchown(self._name_tag, owner.st_uid, owner.st_gid)
        fcntl.lockf(self._name_tag, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _HOLDER)


def _locked(directory: Path) -> int:
    """A descriptor of the directory with the lock. StateBusyError, OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        text = _busy(directory, holder(directory))
        raise StateBusyError(text, directory.with_name(f"{directory.name}-2")) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            os.close(fd)
            raise
        logger.warning(
            "the state directory %s cannot be locked (%s): start no second modelsplit on it",
            directory,
            error.strerror,
        )
    return fd


def _locked_where_the_file_lies(directory: Path) -> int | None:
    """The same of the directory that the state file is in, where a symlink leads to another.

    Somebody may serve from there, or by another such link. None: it is the same directory, or is
    not ours to open. StateBusyError.
    """
    path = directory / state_file.FILE_NAME
    if not path.is_symlink():
        return None
    lies_in = Path(os.path.realpath(path)).parent
    try:
        return None if lies_in.samefile(directory) else _locked(lies_in)
    except OSError:
        return None


def holder(directory: Path) -> Holder:
    """Who holds the lock that is held. Not for the holder itself: it would lose its tag."""
    try:
        fd = os.open(directory / FILE_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return Holder(None, draining=False)
    try:
        pid = _record_lock(fd, _HOLDER)
        return Holder(pid or None, draining=_record_lock(fd, _DRAINING) is not None)
    finally:
        os.close(fd)


def _record_lock(fd: int, byte: int) -> int | None:
    """The pid that has locked a byte, 0 where it cannot be seen; None: nobody has."""
    if sys.platform != "linux":
        return None
    raw = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, raw))
    # Less than 0: on another machine, by way of a network file system.
    return None if kind == fcntl.F_UNLCK else max(0, pid)


def take_over(lock: StateLock, wait_s: float, meanwhile: Callable[[], bool] = lambda: True) -> None:
    """Take the lock; whoever has it is asked to drain first, and waited for, ``wait_s`` at most.

    ``meanwhile``: tried again and again while it drains, until it says True. StateBusyError: it
    has not ended by then, or is not ours to ask.
    """
    try:
        lock.take()
    except FileNotFoundError:
        return  # there is no directory, so nobody has it
    except StateBusyError:
        pid = holder(lock.directory).pid
        if pid is None:
            raise
        _end(lock.directory, pid, wait_s, meanwhile)
        lock.take()


def _end(directory: Path, pid: int, wait_s: float, meanwhile: Callable[[], bool]) -> None:
    """Have the holder drain and wait for its end; return as well if it is the holder no more."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    except OSError as error:
        raise _not_asked(directory, pid, error.strerror or str(error)) from error
    try:
        # From here on the pid cannot become another process's.
        now = holder(directory)
        if now.pid != pid:
            return
        if Path(f"/proc/{pid}").stat().st_uid != os.geteuid():
            raise _not_asked(directory, pid, "it is another user's")
        if not now.draining:
            signal.pidfd_send_signal(process, signal.SIGTERM)
        logger.info(
            "process %d has the state and drains; waiting %s s at most", pid, in_digits(wait_s)
        )
        if not _ends(process, wait_s, meanwhile):
            raise StateBusyError(
                f"process {pid} still serves from the state directory {directory} after "
                f"{in_digits(wait_s)} s; it ends when its own --drain is over"
            )
    except ProcessLookupError:
        return
    finally:
        os.close(process)


def _ends(process: int, wait_s: float, meanwhile: Callable[[], bool]) -> bool:
    """Whether it has ended after ``wait_s`` at most; ``meanwhile`` as ``take_over`` has it."""
    poll = select.poll()
    poll.register(process, select.POLLIN)
    left_s = wait_s
    while not meanwhile() and left_s > 0.0:
        if poll.poll(_TRY_AGAIN_S * 1000):
            return True
        left_s -= _TRY_AGAIN_S
    return bool(poll.poll(max(0.0, left_s) * 1000))


def _not_asked(directory: Path, pid: int, why: str) -> StateBusyError:
    return StateBusyError(
        f"process {pid}, which serves from the state directory {directory}, cannot be asked to "
        f"drain: {why}"
    )


def _busy(directory: Path, held: Holder) -> str:
    who = f"process {held.pid}"
    advice = "stop it, have it drain first with --take-over,"
    if held.pid is None:
        who = "which process cannot be seen from here, as where it runs in another container"
        advice = "stop it there"
    elif held.draining:
        who += ", which is ending"
        advice = "wait for it with --take-over"
    return (
        f"another modelsplit already serves from the state directory {directory}: {who}; "
        f"{advice} or give this one a --state of its own"
    )
