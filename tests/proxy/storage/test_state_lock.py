"""One process per state directory: who has it, who is asked to go, and who never is."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from modelsplit_proxy.storage import state_file, state_lock
from modelsplit_proxy.storage.state_lock import (
    FILE_NAME,
    Holder,
    StateBusyError,
    StateLock,
    take_over,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOLDING = """
import signal, sys
from pathlib import Path
from modelsplit_proxy.storage.state_lock import StateLock
lock = StateLock(Path(sys.argv[1]))
lock.take()
if "draining" in sys.argv:
    lock.say_draining()
if "deaf" in sys.argv or "draining" in sys.argv:
    signal.signal(signal.SIGTERM, lambda *_: print("asked", flush=True))
print("held", flush=True)
for line in sys.stdin:
    pass
"""


@contextmanager
def held(directory: Path, *how: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds it until its stdin ends."""
    command = [sys.executable, "-c", HOLDING, str(directory), *how]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        try:
            yield child
        finally:
            child.kill()


@contextmanager
def taken(directory: Path) -> Iterator[StateLock]:
    lock = StateLock(directory)
    lock.take()
    try:
        yield lock
    finally:
        lock.release()


def busy(directory: Path) -> str:
    """What somebody is told who comes second."""
    with pytest.raises(StateBusyError) as refused:
        StateLock(directory).take()
    return str(refused.value)


# -- the lock --------------------------------------------------------------------------------------


def test_it_is_taken_once_and_can_be_taken_again_when_it_is_released(tmp_path: Path) -> None:
    with taken(tmp_path) as lock:
        lock.take()  # it is ours: nothing happens
        busy(tmp_path)
    with taken(tmp_path):
        pass
    lock.release()  # it is not ours: nothing happens


def test_the_holder_is_named_and_what_to_do(tmp_path: Path) -> None:
    with held(tmp_path) as child:
        assert state_lock.holder(tmp_path) == Holder(child.pid, draining=False)
        assert busy(tmp_path) == (
            f"another modelsplit already serves from the state directory {tmp_path}: process "
            f"{child.pid}; stop it, have it drain first with --take-over, or give this one a "
            "--state of its own"
        )


def test_a_holder_that_drains_is_waited_for(tmp_path: Path) -> None:
    with held(tmp_path, "draining") as child:
        assert state_lock.holder(tmp_path) == Holder(child.pid, draining=True)
        assert f"process {child.pid}, which is ending; wait for it " in busy(tmp_path)


def test_a_kill_frees_it(tmp_path: Path) -> None:
    with held(tmp_path) as child:
        child.kill()
        child.wait()
        with taken(tmp_path):
            pass


@pytest.mark.parametrize("how", ["symlink", "relative", "dots"])
def test_it_is_the_directory_whatever_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (tmp_path / "link").symlink_to(state)
    monkeypatch.chdir(tmp_path)
    other = {"symlink": tmp_path / "link", "dots": state / ".." / "state"}
    with taken(state):
        busy(other.get(how, type(tmp_path)("state")))


def test_a_state_file_that_is_a_link_is_that_of_the_directory_it_lies_in(tmp_path: Path) -> None:
    state, other, third = (tmp_path / name for name in ("state", "other", "third"))
    for directory in (state, other, third):
        directory.mkdir()
    for directory in (other, third):
        (directory / state_file.FILE_NAME).symlink_to(state / state_file.FILE_NAME)
    with held(state) as child:
        assert f"serves from the state directory {state}: process {child.pid};" in busy(other)
    with taken(other):
        assert f"serves from the state directory {state}: which process" in busy(third)
        assert str(state) in busy(state)
        assert str(other) in busy(other)
    with taken(state):
        pass
    with taken(other):  # who was refused has let go of its own
        pass


def test_a_link_to_the_same_directory_or_to_nowhere_is_no_matter(tmp_path: Path) -> None:
    (tmp_path / state_file.FILE_NAME).symlink_to("file")
    with taken(tmp_path):
        busy(tmp_path)
    (tmp_path / state_file.FILE_NAME).unlink()
    (tmp_path / state_file.FILE_NAME).symlink_to(tmp_path / "none" / "file")
    with taken(tmp_path):
        busy(tmp_path)


def test_a_file_that_is_deleted_by_hand_frees_nothing(tmp_path: Path) -> None:
    with held(tmp_path):
        (tmp_path / FILE_NAME).unlink()
        assert state_lock.holder(tmp_path) == Holder(None, draining=False)
        assert "which process cannot be seen from here" in busy(tmp_path)


def test_a_name_tag_that_cannot_be_made_takes_nothing_away(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).symlink_to(tmp_path / "elsewhere")  # never followed
    with taken(tmp_path) as lock:
        lock.say_draining()
        busy(tmp_path)
    assert not (tmp_path / "elsewhere").exists()


def test_the_file_is_private_and_no_child_inherits_anything(tmp_path: Path) -> None:
    with taken(tmp_path) as lock:
        assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600
        assert lock._fd is not None
        assert lock._name_tag is not None
        assert not os.get_inheritable(lock._fd)
        assert not os.get_inheritable(lock._name_tag)


def test_a_directory_that_is_not_there_is_the_callers_business(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        StateLock(tmp_path / "none").take()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_where_nothing_can_be_locked_it_goes_on_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    failing(monkeypatch, code)
    with taken(tmp_path) as lock:
        lock.take()
        text = (
            f"the state directory {tmp_path} cannot be locked ({os.strerror(code)}): start no "
            "second modelsplit on it"
        )
        assert caplog.record_tuples == [("modelsplit", logging.WARNING, text)]


def test_another_error_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        StateLock(tmp_path).take()


def failing(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def flock(*_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)


# -- taking over -----------------------------------------------------------------------------------


def test_nobody_is_asked_where_nobody_has_it(tmp_path: Path) -> None:
    lock = StateLock(tmp_path)
    take_over(lock, 0.0)
    busy(tmp_path)
    lock.release()
    take_over(StateLock(tmp_path / "none"), 0.0)


def test_the_holder_is_asked_and_waited_for(tmp_path: Path) -> None:
    with held(tmp_path) as child:
        lock = StateLock(tmp_path)
        take_over(lock, 60.0)
        assert child.wait() == -signal.SIGTERM
        busy(tmp_path)
        lock.release()


def test_a_holder_that_does_not_end_in_time_keeps_it(tmp_path: Path) -> None:
    with held(tmp_path, "deaf") as child:
        with pytest.raises(StateBusyError) as refused:
            take_over(StateLock(tmp_path), 0.0)
        assert str(refused.value) == (
            f"process {child.pid} still serves from the state directory {tmp_path} after 0 s; it "
            "ends when its own --drain is over"
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "asked\n"


def test_a_holder_that_drains_is_not_asked_again(tmp_path: Path) -> None:
    """A second SIGTERM would cut what it still answers."""
    with held(tmp_path, "draining") as child:
        with pytest.raises(StateBusyError):
            take_over(StateLock(tmp_path), 0.0)
        out, _ = child.communicate()
        assert (child.returncode, out) == (0, "")


def test_a_process_that_cannot_be_seen_is_not_asked(tmp_path: Path) -> None:
    with held(tmp_path, "deaf") as child:
        (tmp_path / FILE_NAME).unlink()
        with pytest.raises(StateBusyError, match="cannot be seen from here"):
            take_over(StateLock(tmp_path), 60.0)
        assert unasked(child)


def test_another_users_process_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held(tmp_path, "deaf") as child:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
        with pytest.raises(StateBusyError) as refused:
            take_over(StateLock(tmp_path), 60.0)
        assert str(refused.value) == (
            f"process {child.pid}, which serves from the state directory {tmp_path}, cannot be "
            "asked to drain: it is another user's"
        )
        assert unasked(child)


def test_a_stranger_is_never_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The holder ends, and its pid becomes another process's, between two looks."""
    with held(tmp_path, "deaf") as stranger:
        looks = iter([Holder(stranger.pid, draining=False)] * 2)
        monkeypatch.setattr(state_lock, "holder", lambda _: next(looks, Holder(1, draining=False)))
        with pytest.raises(StateBusyError, match="process 1;"):
            take_over(StateLock(tmp_path), 60.0)
        assert unasked(stranger)


def test_a_holder_that_has_ended_meanwhile_need_not_be_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held(tmp_path) as gone:
        pass
    monkeypatch.setattr(state_lock, "holder", lambda _: Holder(gone.pid, draining=False))
    with taken(tmp_path), pytest.raises(StateBusyError, match="already serves from"):
        take_over(StateLock(tmp_path), 60.0)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EPERM])
def test_where_a_process_cannot_be_held_nobody_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def pidfd_open(_: int) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "pidfd_open", pidfd_open)
    with held(tmp_path, "deaf") as child:
        with pytest.raises(StateBusyError, match=f"cannot be asked to drain: {os.strerror(code)}"):
            take_over(StateLock(tmp_path), 60.0)
        assert unasked(child)


def unasked(child: subprocess.Popen[str]) -> bool:
    """Let it end by itself: it would have said so."""
    out, _ = child.communicate()
    return (child.returncode, out) == (0, "")
