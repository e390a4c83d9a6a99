"""Standard streams that are closed, full, stuck or broken: nobody who writes is troubled."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from modelsplit_proxy.runtime import streams
from modelsplit_proxy.runtime.streams import Talk

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(name="pipe")
def _pipe() -> Iterator[tuple[int, int]]:
    read_end, write_end = os.pipe()
    yield read_end, write_end
    for fd in (read_end, write_end):
        with contextlib.suppress(OSError):
            os.close(fd)


def fill(fd: int) -> int:
    """Write until it is full; how much that was."""
    os.set_blocking(fd, False)
    written = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            written += os.write(fd, b"x" * 4096)
    os.set_blocking(fd, True)
    return written


def read(fd: int, size: int) -> bytes:
    """Exactly so much."""
    pieces = []
    while size:
        pieces.append(os.read(fd, size))
        size -= len(pieces[-1])
    return b"".join(pieces)


def process(code: str, redirections: str = "") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {redirections}', "sh", sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )


# -- streams that were closed before we began ------------------------------------------------------


@pytest.mark.parametrize("closed", ["", "<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_the_first_three_descriptors_are_in_use(closed: str) -> None:
    code = """
import os, sys
from modelsplit_proxy.runtime import streams
streams.prepare()
print("data", flush=True)
print("talk", file=sys.stderr)
assert all(os.get_inheritable(number) for number in range(3))
opened = os.open("/", os.O_RDONLY)
sys.exit(opened if opened > 2 else 99)
"""
    done = process(code, closed)
    assert done.returncode == 3
    assert done.stdout == (b"" if ">&-" in closed.split() else b"data\n")
    assert done.stderr == (b"" if "2>&-" in closed else b"talk\n")


def test_a_traceback_is_told_all_the_same() -> None:
    code = "from modelsplit_proxy.runtime import streams; streams.prepare(); 1 / 0"
    done = process(code)
    assert done.returncode == 1
    assert done.stderr.endswith(b"ZeroDivisionError: division by zero\n")
    assert process(code, "2>/dev/full").returncode == 1


def test_what_nobody_can_encode_is_escaped() -> None:
    code = (
        "import sys; from modelsplit_proxy.runtime import streams; streams.prepare();"
        "print('\\udc80', file=sys.stderr)"
    )
    assert process(code).stderr == b"\\udc80\n"


@pytest.mark.parametrize(
    "talk",
    [
        "import warnings; warnings.warn('w')",
        "import logging; logging.getLogger('asyncio').error('e')",
        "import logging; logging.error('%d', 'x')",
        "import asyncio; asyncio.SelectorEventLoop().call_exception_handler({'message': 'm'})",
        "import threading; t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()",
        "import faulthandler; faulthandler.enable(); faulthandler.dump_traceback()",
    ],
    ids=["warnings", "last resort", "a wrong log call", "asyncio", "a thread", "faulthandler"],
)
def test_whoever_talks_to_stderr_is_not_troubled(talk: str) -> None:
    code = (
        f"from modelsplit_proxy.runtime import streams\nstreams.prepare()\n{talk}\nstreams.leave(7)"
    )
    for redirections in ("2>&-", "2>/dev/full"):
        assert process(code, redirections).returncode == 7


# -- stdout of a command ---------------------------------------------------------------------------


def test_data_that_cannot_be_written_is_an_error_and_a_reader_that_left_is_its_own() -> None:
    code = """
import sys
from modelsplit_proxy.runtime import streams
streams.prepare()
print("data")
try:
    sys.stdout.flush()
except streams.OutputError as error:
    streams.drop_output()
    print(error, file=sys.stderr)
except BrokenPipeError:
    streams.drop_output()
    print("left", file=sys.stderr)
"""
    done = process(code, ">/dev/full")
    assert (done.returncode, done.stderr) == (0, b"No space left on device\n")
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = broken(code, write_end)
    assert (done.returncode, done.stderr) == (0, b"left\n")


def broken(code: str, write_end: int) -> subprocess.CompletedProcess[bytes]:
    """With that as its stdout."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, check=False)
    os.close(write_end)
    return done


# -- stderr ----------------------------------------------------------------------------------------


def test_a_reader_that_has_gone_is_nobodys_business(pipe: tuple[int, int]) -> None:
    read_end, write_end = pipe
    talk = Talk(write_end)
    assert (talk.write(b"heard\n"), read(read_end, 6)) == (6, b"heard\n")
    os.close(read_end)
    assert talk.write(b"lost\n") == 5
    talk.start()
    assert talk.write(b"lost\n") == 5
    talk.stop()
    assert (talk.fileno(), talk.isatty(), talk.writable()) == (write_end, False, True)


def test_a_thread_writes_in_order_and_all_of_it_before_the_end(pipe: tuple[int, int]) -> None:
    read_end, write_end = pipe
    talk = Talk(write_end)
    talk.start()
    for number in range(100):
        talk.write(b"%d\n" % number)
    talk.stop()
    talk.write(b"after\n")
    os.close(write_end)
    lines = b"".join(iter(lambda: os.read(read_end, 4096), b"")).split()
    assert lines == [*(b"%d" % number for number in range(100)), b"after"]


def test_a_reader_that_stops_holds_nobody_up_and_what_is_dropped_is_counted(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_MAX_WAITING", 2)
    monkeypatch.setattr(streams, "_LAST_S", 0.0)
    read_end, write_end = pipe
    talk = Talk(write_end)
    full = fill(write_end)
    talk.start()
    talk.write(b"a" * full)  # the thread stands before the pipe with this, or is about to
    for _ in range(10):
        talk.write(b"b\n")
    talk.stop()  # in vain: it hangs in its write
    talk.write(b"c\n")
    assert read(read_end, full) == b"x" * full
    assert read(read_end, full) == b"a" * full
    told = b""
    while not told.endswith(b"not written here\n"):
        told += os.read(read_end, 4096)
    kept = told.count(b"b\n")
    assert 1 <= kept <= 2
    assert told == b"b\n" * kept + (
        b"modelsplit: warning: %d lines were not written here\n" % (11 - kept)
    )
    monkeypatch.setattr(streams, "_LAST_S", 60.0)
    talk.stop()


def test_a_pipe_that_somebody_made_non_blocking_is_waited_for(pipe: tuple[int, int]) -> None:
    read_end, write_end = pipe
    full = fill(write_end)
    os.set_blocking(write_end, False)
    talk = Talk(write_end)
    talk.start()
    talk.write(b"late\n")
    assert read(read_end, full + 5).endswith(b"late\n")
    talk.stop()


def test_a_stream_that_is_not_ours_is_left_alone() -> None:
    stream = io.StringIO()
    with streams.unhurried(stream):
        stream.write("x")
    assert stream.getvalue() == "x"


# -- the end ---------------------------------------------------------------------------------------


def test_a_thread_that_hangs_does_not_hold_up_the_end() -> None:
    code = """
import os, threading
from modelsplit_proxy.runtime import streams
streams.prepare()
read_end, write_end = os.pipe()
threading.Thread(target=os.read, args=(read_end, 1)).start()
streams.leave(7)
"""
    assert process(code).returncode == 7
