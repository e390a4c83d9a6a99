"""The standard streams, so that nothing that becomes of them ends or holds up the process.

A reader that leaves, a full disk, a closed terminal, a stream that was closed before we
began: what we have to say is lost then, and nothing else. stdout of a command is data, so
there, and only there, a failure is told: the exit code must not claim that all went well.
"""

from __future__ import annotations

import errno
import io
import os
import queue
import select
import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

_STDIN, STDOUT, STDERR = 0, 1, 2
# Pieces that may wait for a reader of stderr who is slow or has stopped.
_MAX_WAITING: Final = 1000
# How long the end of the process waits for such a reader.
_LAST_S: Final = 1.0


class OutputError(Exception):
    """What a command has to say cannot be written to stdout. The text is the system's."""


def prepare() -> None:
    """Make the standard streams safe; to be called before anything else is opened."""
    occupy()
    sys.stdout = _text(io.BufferedWriter(_Output(STDOUT, "w", closefd=False)), sys.stdout)
    sys.stderr = _text(Talk(STDERR), sys.stderr)


def occupy() -> None:
    """Open /dev/null in place of standard streams that are closed.

    The next file or socket would get that number, and whoever writes to the stream would write
    into it; libuv ends the process rather than close such a socket.
    """
    for number in (_STDIN, STDOUT, STDERR):
        try:
            os.fstat(number)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            # The lowest free number, as those below it are in use.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _text(binary: Any, before: TextIO | None) -> TextIO:
    """A text stream over ``binary`` that behaves as ``before``; None: it was closed."""
    return io.TextIOWrapper(
        binary,
        encoding="utf-8" if before is None else before.encoding,
        errors="backslashreplace" if before is None else before.errors,
        line_buffering=isinstance(binary, Talk) or binary.isatty(),
        write_through=isinstance(binary, Talk),
    )


def write(fd: int, data: bytes) -> None:
    """Write all of it, however long that takes; raises OSError."""
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(fd, left) :]
        except BlockingIOError:
            # Somebody we share it with has made it non-blocking.
            _wait_writable(fd)


def _wait_writable(fd: int) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    poll.poll()


class _Output(io.FileIO):
    """stdout: OutputError instead of what the system raises, but for a reader that has left."""

    def write(self, data: Any, /) -> int:
        try:
            write(self.fileno(), bytes(data))
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(error.strerror or str(error)) from error
        return len(data)


class Talk(io.RawIOBase):
    """stderr: what cannot be written is lost. Never raises.

    Written at once, or by a thread between ``start`` and ``stop``: then nobody waits for a
    slow reader, and beyond a thousand pieces they are dropped and counted.
    """

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._waiting: queue.Queue[bytes | None] | None = None
        self._writer: threading.Thread | None = None
        self._dropped = 0

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def write(self, data: Any, /) -> int:
        piece = bytes(data)
        if self._waiting is None:
            self._write(piece)
        else:
            try:
                self._waiting.put_nowait(piece)
            except queue.Full:
                self._dropped += 1
        return len(piece)

    def start(self) -> None:
        waiting: queue.Queue[bytes | None] = queue.Queue(_MAX_WAITING)
        self._waiting = waiting
        self._writer = threading.Thread(
            target=self._write_all, args=(waiting,), name="stderr", daemon=True
        )
        self._writer.start()

    def stop(self) -> None:
        """Wait a moment for what is left; where the reader has stopped, the rest is lost."""
        if self._waiting is None or self._writer is None:
            return
        with suppress(queue.Full):
            self._waiting.put(None, timeout=_LAST_S)
            self._writer.join(_LAST_S)
        if not self._writer.is_alive():
            self._waiting = None

    def _write_all(self, waiting: queue.Queue[bytes | None]) -> None:
        while (piece := waiting.get()) is not None:
            self._write(piece)
            if self._dropped and waiting.empty():
                count, self._dropped = self._dropped, 0
                self._write(b"modelsplit: warning: %d lines were not written here\n" % count)

    def _write(self, piece: bytes) -> None:
        with suppress(OSError):
            write(self._fd, piece)


@contextmanager
def unhurried(stream: TextIO) -> Iterator[None]:
    """Let a thread write to ``stream`` meanwhile, if it is ours: see ``Talk``."""
    talk = getattr(stream, "buffer", None)
    if not isinstance(talk, Talk):
        yield
        return
    talk.start()
    try:
        yield
    finally:
        talk.stop()


def drop_output() -> None:
    """What stdout still holds goes nowhere: Python writes it once more as it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), sys.stdout.fileno())


def leave(code: int) -> None:
    """End the process with this exit code, even while a thread hangs in a write to stdout.

    Python would wait for that thread, for as long as nobody reads.
    """
    here = threading.current_thread()
    if any(thread is not here and not thread.daemon for thread in threading.enumerate()):
        os._exit(code)
    sys.exit(code)
