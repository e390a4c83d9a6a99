"""`modelsplit requests`: from the running proxy, or from its file when nothing runs."""

from __future__ import annotations

import asyncio
import os
import pwd
import tempfile
import time
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from modelsplit_proxy.cli import requests
from modelsplit_proxy.cli.commands import COMMANDS
from modelsplit_proxy.cli.main import build_parser
from modelsplit_proxy.cli.output import CommandError, talk
from modelsplit_proxy.config.settings import Address
from modelsplit_proxy.records.query_error import QueryError
from modelsplit_proxy.records.recorder import Recorder
from modelsplit_proxy.runtime.clock import SystemClock
from modelsplit_proxy.storage.state_file import FILE_NAME, StoreError
from modelsplit_sim.config import SimConfig
from support.harness import Running, running
from support.records import answered, fallen_back, turned_away
from support.stores import execute, make_first_version, opened

if TYPE_CHECKING:
    from collections.abc import Iterator

Capture = pytest.CaptureFixture[str]
NOBODY = Address("127.0.0.1", 1)


def asked(*arguments: str) -> tuple[requests.RequestsArguments, Path | None]:
    args = build_parser(COMMANDS).parse_args(["requests", *arguments])
    return requests.read_arguments(args), args.state


def run(*arguments: str, admin: Address = NOBODY) -> int:
    question, state = asked(*arguments)
    try:
        return requests.run(question, admin, state, SystemClock())
    except CommandError as error:
        talk(str(error))
        return error.code


async def of(up: Running, *arguments: str) -> int:
    return await asyncio.to_thread(run, *arguments, admin=Address("127.0.0.1", up.admin_port))


@contextmanager
def kept(directory: Path) -> Iterator[str]:
    """Three calls in a file that nobody has open; yields the directory's name."""
    with opened(directory) as store:
        recorder = Recorder(store)
        recorder.call_ended(answered(request_id="good", job_id="job-1"))
        recorder.call_ended(turned_away(request_id="refused", started_wall=1795393800.0))
        recorder.call_ended(fallen_back(request_id="fell-back", started_wall=1795393700.0))
    yield str(directory)


# --- From the running proxy ---------------------------------------------------------------------


async def test_the_last_calls_are_listed_the_last_one_last(capsys: Capture) -> None:
    async with running(SimConfig(tokens=2)) as up, up.client() as client:
        for request_id, model in (("first", "planner"), ("second", "nosuch:1b")):
            body = {"model": model, "prompt": "x", "stream": False}
            await client.request("POST", "/api/generate", body, {"X-Request-Id": request_id})
        assert await of(up) == 0
        first, second = capsys.readouterr().out.splitlines()
        assert "PLANNER  planner -> qwen3:4b" in first
        assert first.endswith("first")
        assert "404" in second
        assert second.endswith("E_MODEL_NOT_FOUND not_installed  second")
        assert await of(up, "--failed", "--since", "1h") == 0
        assert capsys.readouterr().out.splitlines() == [second]
        assert await of(up, "--role", "heavy") == 0
        assert capsys.readouterr() == ("", "modelsplit: no call matches\n")
        assert await of(up, "--limit", "1", "--json") == 0
        [call] = orjson.loads(capsys.readouterr().out)
        assert call["request_id"] == "second"


async def test_a_running_call_is_listed_where_it_came(capsys: Capture) -> None:
    sim = SimConfig(tokens=10**6, token_rate=200)
    async with running(sim) as up, up.client() as client:
        body = {"model": "planner", "prompt": "x", "stream": True}
        await client.ask("POST", "/api/generate", body, {"X-Request-Id": "under-way"})
        await client.head()
        assert await of(up) == 0
        line = capsys.readouterr().out
        assert line.endswith("attempt 1  running streaming  under-way\n")
        assert await of(up, "--outcome", "running", "--json") == 0
        [call] = orjson.loads(capsys.readouterr().out)
        assert (call["request_id"], call["status"], call["outcome"]) == (
            *("under-way", 200, "running"),
        )
        assert await of(up, "--failed") == 0
        assert capsys.readouterr().out == ""
        client.reset()
        await up.calls.wait()


async def test_one_call_is_explained(capsys: Capture) -> None:
    async with running(SimConfig(tokens=2)) as up, up.client() as client:
        body = {"model": "planner", "prompt": "x", "stream": False}
        await client.request("POST", "/api/generate", body, {"X-Request-Id": "call-1"})
        assert await of(up, "call") == 0
        assert "attempt 1  qwen3:4b\n" in capsys.readouterr().out
        assert await of(up, "call-1", "--json") == 0
        assert orjson.loads(capsys.readouterr().out)["attempts"][0]["outcome"] == "ok"
        assert await of(up, "nobody/../?x") == 1
        assert capsys.readouterr() == (
            "",
            (
                'modelsplit: no call has the request id "nobody/../?x"; see the last ones with '
                f"`modelsplit requests --admin 127.0.0.1:{up.admin_port}`\n"
            ),
        )


async def test_all_calls_are_exported_as_a_trace(capsys: Capture) -> None:
    async with running(SimConfig(tokens=2)) as up, up.client() as client:
        for number in range(3):
            body = {"model": "planner", "prompt": "x", "stream": False}
            await client.request("POST", "/api/generate", body, {"X-Request-Id": f"c{number}"})
        assert await of(up, "--export") == 0
        calls = [orjson.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [(call["trace"], call["request_id"]) for call in calls] == [
            (2, "c0"),
            (2, "c1"),
            (2, "c2"),
        ]
        assert await of(up, "--export", "--role", "HEAVY") == 0
        assert capsys.readouterr().out == ""


async def test_the_proxy_says_what_is_wrong_with_the_question(capsys: Capture) -> None:
    async with running() as up:
        assert await of(up, "--role", "boss") == 2
        assert 'modelsplit: role "boss" is unknown' in capsys.readouterr().err
        assert await of(up, "--export", "--since", "soon") == 2
        assert 'since "soon" is neither a time ago' in capsys.readouterr().err


async def test_a_file_the_proxy_cannot_read_is_no_finding(capsys: Capture) -> None:
    async with running() as up:
        up.app.store.path.unlink()
        assert await of(up) == 1
        assert "cannot be read: unable to open database file" in capsys.readouterr().err


async def test_something_else_on_that_port_is_said_so(capsys: Capture) -> None:
    async with running() as up:
        code = await asyncio.to_thread(run, "x", admin=Address("127.0.0.1", up.sim.port))
        assert code == 3
        assert "answered 404, not as we do; is this the admin port?" in capsys.readouterr().err


def test_nothing_that_runs_is_3_and_says_what_to_do(capsys: Capture) -> None:
    assert run() == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("modelsplit: nobody listens at http://127.0.0.1:1:")
    assert "--state DIR reads its file" in err


# --- From the file ------------------------------------------------------------------------------


def test_without_a_proxy_the_file_tells_the_same(tmp_path: Path, capsys: Capture) -> None:
    with kept(tmp_path) as state:
        assert run("--state", state) == 0
        names = [line.rsplit(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines()]
        assert names == ["fell-back", "good", "refused"]
        assert run("--state", state, "--job", "job-1", "--json") == 0
        [call] = orjson.loads(capsys.readouterr().out)
        assert call["request_id"] == "good"
        assert run("--state", state, "fell") == 0
        assert "fallback   yes: the first attempt ended" in capsys.readouterr().out
        assert run("--state", state, "--export") == 0
        names = [orjson.loads(line)["request_id"] for line in capsys.readouterr().out.splitlines()]
        assert names == ["fell-back", "good", "refused"]


def test_any_file_can_be_read_also_one_that_was_set_aside(tmp_path: Path, capsys: Capture) -> None:
    with kept(tmp_path):
        aside = tmp_path / f"{FILE_NAME}.corrupt-20261123T002903Z"
        (tmp_path / FILE_NAME).rename(aside)
        assert run("--state", str(aside), "good") == 0
        assert "request    good" in capsys.readouterr().out


def test_reading_changes_nothing(tmp_path: Path) -> None:
    with kept(tmp_path) as state:
        before = (tmp_path / FILE_NAME).read_bytes()
        assert run("--state", state) == 0
        assert (tmp_path / FILE_NAME).read_bytes() == before


def test_an_id_that_is_not_in_the_file(tmp_path: Path, capsys: Capture) -> None:
    with kept(tmp_path) as state:
        assert run("--state", state, "nobody") == 1
        assert capsys.readouterr().err == (
            'modelsplit: no call has the request id "nobody"; see the last ones with '
            f"`modelsplit requests --state {state}`\n"
        )
        assert run("--state", state, "--role", "boss") == 2


def test_a_place_that_cannot_be_looked_at() -> None:
    name = "x" * 300
    with pytest.raises(StoreError, match=f"state file (in )?{name}"):
        run("--state", name)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=f"no state file there: {tmp_path / FILE_NAME}"):
        run("--state", str(tmp_path))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_somebody_elses_file_says_whose_it_is(mode: int) -> None:
    """Whether it is the directory or the file that may not be opened."""
    with tempfile.TemporaryDirectory() as name, kept(Path(name)):
        Path(name).chmod(mode)
        os.seteuid(pwd.getpwnam("nobody").pw_uid)
        try:
            with pytest.raises(StoreError, match=r"may only be opened by the user root, .*sudo"):
                run("--state", name)
        finally:
            os.seteuid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_a_copy_in_a_place_that_cannot_be_written_is_read(capsys: Capture) -> None:
    with tempfile.TemporaryDirectory() as name:
        with kept(Path(name)):
            pass
        Path(name).chmod(0o755)
        (Path(name) / FILE_NAME).chmod(0o644)
        os.seteuid(pwd.getpwnam("nobody").pw_uid)
        try:
            assert run("--state", name, "--json") == 0
        finally:
            os.seteuid(0)
    assert orjson.loads(capsys.readouterr().out)


def test_a_file_of_another_age_says_what_to_do(tmp_path: Path) -> None:
    make_first_version(tmp_path, rows=1)
    with pytest.raises(StoreError, match=r"is of schema 1.*brings older files forward"):
        run("--state", str(tmp_path))
    assert execute(tmp_path, "PRAGMA user_version") == [(1,)]


# --- Contradictions -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["x", "--role", "PLANNER"], "an ID names one call"),
        (["x", "--export"], "an ID names one call"),
        ([""], "the ID is empty"),
        (["x", "--limit", "1"], "an ID names one call"),
        (["--export", "--limit", "1"], "JSON Lines of all calls"),
        (["--export", "--json"], "JSON Lines of all calls"),
        (["--limit", "1001"], "--limit 1001 is not between 1 and 1000"),
        (["--limit", "0"], "--limit 0 is not between 1 and 1000"),
        (["--limit", "-1"], "--limit -1 is not between 1 and 1000"),
    ],
)
def test_flags_that_do_not_go_together(arguments: list[str], error: str) -> None:
    with pytest.raises(QueryError, match=error):
        asked(*arguments)


def test_the_words_that_were_said() -> None:
    expected: dict[str, Any] = {"role": "PLANNER", "failed": "1", "since": "1h"}
    question, _ = asked("--role", "PLANNER", "--failed", "--since", "1h")
    assert question == requests.RequestsArguments(None, expected, 50, as_json=False, export=False)


# --- Following ----------------------------------------------------------------------------------


@pytest.mark.parametrize("as_json", [False, True])
async def test_calls_are_followed_until_ctrl_c(
    as_json: bool, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(requests, "_wait", leave)
    async with running(SimConfig(tokens=2)) as up, up.client() as client:
        body = {"model": "planner", "prompt": "x", "stream": False}
        await client.request("POST", "/api/generate", body, {"X-Request-Id": "first"})
        await up.calls.wait()
        with pytest.raises(KeyboardInterrupt):
            await of(up, "--follow", *(["--json"] if as_json else []))
    [line] = capsys.readouterr().out.splitlines()
    assert orjson.loads(line)["request_id"] == "first" if as_json else line.endswith("first")


@pytest.mark.parametrize("words", [["abc"], ["--export"], ["--state", "x"]])
def test_only_the_running_proxy_is_followed(words: list[str]) -> None:
    with pytest.raises(QueryError, match="--follow is of the running proxy"):
        asked("--follow", *words)


@pytest.mark.parametrize(
    ("zone", "name", "hours"),
    [("UTC", "UTC", 0), ("LINT-14", "LINT", 14)],
)
def test_times_are_those_of_this_machine_and_its_zone_is_named(
    zone: str,
    name: str,
    hours: int,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    with kept(tmp_path) as state, monkeypatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        assert run("--state", state) == 0
        told = capsys.readouterr()
        assert run("--state", state, "--json") == 0
        stamps = [call["started_at"] for call in orjson.loads(capsys.readouterr().out)]
    time.tzset()
    shifted = [datetime.fromisoformat(stamp) + timedelta(hours=hours) for stamp in stamps]
    lines = told.out.splitlines()
    assert [line[: 24 + len(name)] for line in reversed(lines)] == [
        f"{moment.isoformat(' ', 'milliseconds')[:23]} {name}" for moment in shifted
    ]
