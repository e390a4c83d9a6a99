"""The real command in a real process: start, signals, systemd, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import resource
import signal
import socket
import sqlite3
import stat
from collections import Counter
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from support.calls import call
from support.ports import kept_port
from support.process import (
    Process,
    activated,
    hangup,
    ollama,
    redirected,
    serving,
    serving_unheard,
    spawned,
)
from support.unfinished import PATIENT, begin, piece, unfinished
from support.wire import Client

ROUTE = "/api/generate"
SLOW = ("--token-rate", "50", "--tokens", "100000", "--num-parallel", "8")

# What the stand-in can do at once, so that nothing has to be learned first; and a line in which
# nobody runs out of patience while processes start.
PARALLEL = (
    '{"extends":"default","global":{"parallel":8},"models":{"qwen3:4b":{"parallel":8}},'
    '"roles":{"PLANNER":{"max_wait_ms":600000,"allow_long_wait":true}}}'
)


async def wait(control: Client, **numbers: int) -> None:
    """Until the stand-in has exactly these numbers."""
    answer = await control.request("POST", "/wait", {**numbers, "timeout": None})
    assert answer.status == 200, answer.body


async def begin_stream(client: Client, tokens: int = 100_000) -> None:
    body = call(ROUTE, "planner", stream=True, options={"num_predict": tokens})
    await client.ask("POST", ROUTE, body)
    answer = await client.head()
    assert answer.status == 200
    await anext(client.pieces(answer))


async def test_it_serves_logs_and_ends(tmp_path: Path) -> None:
    async with ollama("--tokens", "3") as (upstream, _), serving(upstream, tmp_path) as proxy:
        async with proxy.client() as client:
            answer = await client.request("POST", ROUTE, call(ROUTE, "planner"))
            assert (answer.status, answer["X-LLM-Role"]) == (200, "PLANNER")
        line = json.loads(await proxy.said())
        assert line["request_id"] == answer["X-Request-Id"]
        assert (line["status"], line["outcome"]) == (200, "ok")
        async with proxy.admin() as admin:
            assert (await admin.request("GET", "/healthz")).status == 200
            found = await admin.request("GET", f"/requests/{line['request_id']}")
            assert found.json["llm_model"] == "qwen3:4b"
        proxy.signal(signal.SIGTERM)
        assert await proxy.ended() == 0


async def test_the_first_lines_say_where_it_is_and_what_to_do(tmp_path: Path) -> None:
    async with ollama() as (upstream, _), serving(upstream, tmp_path) as proxy:
        line = await proxy.talk("OLLAMA_HOST=")
        assert f"OLLAMA_HOST=http://127.0.0.1:{proxy.port}" in line


@pytest.mark.parametrize("log_format", ["json", "text"])
async def test_stderr_has_the_format_that_stdout_has(tmp_path: Path, log_format: str) -> None:
    options = ("--state", str(tmp_path), "--log-format", log_format)
    arguments = ("serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", *options)
    async with spawned("modelsplit_proxy", *arguments) as process:
        await process.talk("point a client here")
        process.signal(signal.SIGTERM)
        code, _, rest = await process.outcome()
    assert code == 0
    for line in rest.splitlines():
        if log_format == "json":
            fields = json.loads(line)
            assert (fields["event"], fields["level"] in {"info", "warning"}) == ("log", True)
        else:
            assert re.match(r"\d{4}-\d\d-\d\dT[\d:.]{12}Z modelsplit: ", line)


async def test_a_slip_in_a_variables_name_is_told(tmp_path: Path) -> None:
    options = ("--state", str(tmp_path), "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    env = {"MODELSPLIT_DRIAN": "1s"}
    async with spawned("modelsplit_proxy", "serve", *options, env=env) as process:
        line = await process.talk("MODELSPLIT_DRIAN")
        assert line == (
            "modelsplit: warning: MODELSPLIT_DRIAN is no setting of ours; is it MODELSPLIT_DRAIN?\n"
        )


async def test_sigterm_lets_a_stream_end(tmp_path: Path) -> None:
    async with (
        unfinished() as (port, upstream),
        serving(port, tmp_path, *PATIENT) as proxy,
        proxy.client() as client,
    ):
        await begin(client)
        proxy.signal(signal.SIGTERM)
        await proxy.talk("draining")
        await refused(proxy)
        upstream.finish.set()
        assert client.reader is not None
        rest = await client.reader.read()
        assert piece(done=True) in rest
        assert rest.endswith(b"0\r\n\r\n")
        assert await proxy.ended() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_cuts_visibly(tmp_path: Path, number: signal.Signals) -> None:
    async with ollama(*SLOW) as (upstream, control), serving(upstream, tmp_path) as proxy:
        async with proxy.client() as client:
            await begin_stream(client)
            proxy.signal(number)
            await proxy.talk("draining")
            proxy.signal(number)
            assert await proxy.ended() == 0
            assert client.reader is not None
            rest = await client.reader.readuntil(b"\r\n0\r\n\r\n")
            assert b'"reason":"draining"' in rest
            assert b'"done":true' not in rest
        await wait(control, active=0)


async def test_a_hangup_drains_and_does_not_cut_however_often_it_comes(tmp_path: Path) -> None:
    """A terminal that is closed may send it twice, by way of its shell and of the kernel."""
    async with (
        unfinished() as (port, upstream),
        serving(port, tmp_path, *PATIENT, wrapper=hangup("SIG_DFL")) as proxy,
        proxy.client() as client,
    ):
        await begin(client)
        proxy.signal(signal.SIGHUP)
        await proxy.talk("stopping")
        proxy.signal(signal.SIGHUP)
        upstream.finish.set()
        assert client.reader is not None
        assert piece(done=True) in await client.reader.read()
        assert await proxy.ended() == 0


async def test_a_hangup_that_is_ignored_at_the_start_stays_ignored(tmp_path: Path) -> None:
    """As under nohup."""
    async with (
        ollama("--tokens", "2") as (upstream, _),
        serving(upstream, tmp_path, wrapper=hangup("SIG_IGN")) as proxy,
    ):
        proxy.signal(signal.SIGHUP)
        async with proxy.client() as client:
            answer = await client.request("POST", ROUTE, call(ROUTE, "planner"))
            assert answer.status == 200
        proxy.signal(signal.SIGTERM)
        _, _, talk = await proxy.outcome()
        assert "stopping" in talk


async def test_the_drain_has_an_end_and_those_in_line_are_told(tmp_path: Path) -> None:
    policy = tmp_path / "policy.json"
    policy.write_text(PARALLEL)
    options = ("--drain", "300ms", "--policy", str(policy))
    async with (
        ollama(*SLOW) as (upstream, _),
        serving(upstream, tmp_path, *options) as proxy,
        proxy.client() as one,
        proxy.client() as two,
        proxy.client() as three,
        proxy.admin() as admin,
    ):
        await begin_stream(one)
        await begin_stream(two)
        await three.ask("POST", ROUTE, call(ROUTE, "planner"))
        await until_waiting(admin, "PLANNER")
        proxy.signal(signal.SIGTERM)
        answer = await three.answer()
        assert (answer.status, answer.phrase) == (503, "Draining")
        assert answer.json["reason"] == "draining"
        assert 1 <= int(answer["Retry-After"]) <= 30
        assert await proxy.ended() == 0


async def refused(proxy: Process) -> None:
    """Until nobody listens any more."""
    while True:
        try:
            async with proxy.client() as client:
                await client.open()
        except ConnectionRefusedError:
            return


async def until_waiting(admin: Client, role: str) -> None:
    while True:
        stats = (await admin.request("GET", "/stats")).json
        if stats["roles"][role]["waiting"]:
            return


async def test_it_starts_without_ollama_and_serves_when_it_comes(tmp_path: Path) -> None:
    with kept_port() as port:
        async with serving(port, tmp_path) as proxy:
            async with proxy.client() as client:
                answer = await client.request("POST", ROUTE, call(ROUTE, "planner"))
                assert (answer.status, answer.phrase) == (502, "Ollama Unreachable")
                assert f"http://127.0.0.1:{port}" in answer.json["error"]
                async with ollama("--port", str(port), "--tokens", "2"):
                    answer = await client.request("POST", ROUTE, call(ROUTE, "planner"))
                    assert answer.status == 200
            proxy.signal(signal.SIGTERM)
            _, _, talk = await proxy.outcome()
            assert "Traceback" not in talk


async def test_an_absent_ollama_is_told_at_the_start(tmp_path: Path) -> None:
    arguments = ("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--state", str(tmp_path))
    with kept_port() as port:
        upstream = ("--upstream", f"127.0.0.1:{port}")
        async with spawned("modelsplit_proxy", "serve", *arguments, *upstream) as proxy:
            told = ""
            # Which of the two comes first depends on how long the first look takes.
            while not ("is not answering" in told and " listens on http://" in told):
                told += await proxy.talk("")
    [line] = [line for line in told.splitlines() if "is not answering" in line]
    assert f"http://127.0.0.1:{port}" in line
    assert "Is it running?" in line


async def test_the_state_is_the_owners_alone(tmp_path: Path) -> None:
    state = tmp_path / "made" / "here"
    async with ollama() as (upstream, _), serving(upstream, state) as proxy:
        assert stat.S_IMODE(state.stat().st_mode) == 0o700
        files = list(state.iterdir())
        assert "modelsplit.sqlite3" in {file.name for file in files}
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
        async with proxy.client() as client:
            await client.request("POST", ROUTE, call(ROUTE, "planner"))
        proxy.signal(signal.SIGTERM)
        assert await proxy.ended() == 0
    with closing(sqlite3.connect(state / "modelsplit.sqlite3")) as db:
        assert db.execute("SELECT role, outcome FROM calls").fetchall() == [("PLANNER", "ok")]


@pytest.mark.parametrize("which", ["--listen", "--admin"])
async def test_a_busy_port_is_named(tmp_path: Path, which: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        other = "--admin" if which == "--listen" else "--listen"
        options = (which, address, other, "127.0.0.1:0", "--state", str(tmp_path))
        async with spawned("modelsplit_proxy", "serve", *options) as proxy:
            code, out, talk = await proxy.outcome()
    assert (code, out) == (69, "")
    assert talk.startswith(
        f"modelsplit: cannot listen on {address}: another program listens there; choose another, "
    )


async def test_a_state_that_cannot_be_is_named() -> None:
    options = ("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--state", "/dev/null/x")
    async with spawned("modelsplit_proxy", "serve", *options) as proxy:
        code, out, talk = await proxy.outcome()
    assert (code, out) == (78, "")
    assert "/dev/null/x" in talk
    assert "Traceback" not in talk


async def test_a_bad_policy_is_told_whole(tmp_path: Path) -> None:
    policy = tmp_path / "policy.json"
    policy.write_text('{"extends":"default","global":{"max_concurrent":0},"rolls":{}}')
    options = ("--policy", str(policy), "--state", str(tmp_path))
    async with spawned("modelsplit_proxy", "serve", *options) as proxy:
        code, _, talk = await proxy.outcome()
    assert code == 78
    assert "$.global.max_concurrent" in talk
    assert "$.rolls" in talk


async def test_a_policy_is_told_by_where_it_is_to_whoever_asks_from_another_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "policy.json").write_text('{"extends": "default"}')
    monkeypatch.chdir(tmp_path)
    async with (
        ollama() as (upstream, _),
        serving(upstream, tmp_path / "state", "--policy", "policy.json") as proxy,
        proxy.admin() as admin,
    ):
        stats = (await admin.request("GET", "/stats")).json
        assert stats["policy"]["source"] == str(tmp_path / "policy.json")


async def test_systemd_is_told(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))

        async def until(wanted: bytes) -> bytes:
            """The next message that begins so; what comes before it is not looked at."""
            while not (told := await asyncio.to_thread(manager.recv, 4096)).startswith(wanted):
                continue
            return told

        env = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "200000"}
        async with ollama(*SLOW) as (upstream, _), serving(upstream, tmp_path, env=env) as proxy:
            told = await asyncio.to_thread(manager.recv, 4096)
            assert told.startswith(b"READY=1\nSTATUS=listening on 127.0.0.1:")
            await until(b"WATCHDOG=1")
            assert b"running: none; waiting: none" in await until(b"STATUS=listening on 127.0.0.1:")
            await until(b"WATCHDOG=1")
            async with proxy.client() as client:
                await begin_stream(client)
                await until(b"STATUS=")
                proxy.signal(signal.SIGTERM)
                await until(b"STOPPING=1")
                assert await until(b"STATUS=draining") == (
                    b"STATUS=draining: 1 requests are being answered"
                )
                # Whatever TimeoutStopSec= says, a drain that goes on is not killed.
                for _ in range(2):
                    await until(b"EXTEND_TIMEOUT_USEC=10000000")
                proxy.signal(signal.SIGTERM)
                assert await proxy.ended() == 0


async def test_a_socket_of_systemds_is_used(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with (
            ollama("--tokens", "2") as (upstream, _),
            activated(listener, upstream, tmp_path) as proxy,
        ):
            async with proxy.client() as client:
                answer = await client.request("POST", ROUTE, call(ROUTE, "planner"))
                assert answer.status == 200
            proxy.signal(signal.SIGTERM)
            assert await proxy.ended() == 0
            # The socket is systemd's: it still takes connections for a successor.
            with socket.create_connection(("127.0.0.1", proxy.port)):
                pass


async def test_three_restarts_under_load_refuse_nobody_and_cut_nothing(tmp_path: Path) -> None:
    """Who connects while nobody serves waits in the socket, which is systemd's."""
    (tmp_path / "policy.json").write_text(PARALLEL)
    options = ("--policy", str(tmp_path / "policy.json"), "--drain", "10m")
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        load = Load(listener.getsockname()[1])
        async with (
            ollama("--tokens", "2", "--num-parallel", "8") as (upstream, _),
            asyncio.TaskGroup() as clients,
        ):
            for number in range(6):
                clients.create_task(load.client(stream=number % 2 == 0))
            for restarts_left in (3, 2, 1, 0):
                served = activated(
                    listener, upstream, tmp_path, *options, module="support.heard_out"
                )
                async with served as proxy:
                    await load.answered(12)
                    if not restarts_left:
                        await load.end(6)
                    proxy.signal(signal.SIGTERM)
                    assert await proxy.ended() == 0
    # Who is not served is told to come again.
    assert all(outcome == "whole 200" or outcome.endswith(" 503") for outcome in load.outcomes)
    assert load.outcomes["whole 200"] >= 48


class Load:
    """Clients that call again and again, each time on a new connection. ``outcomes``: counts."""

    def __init__(self, port: int) -> None:
        self.outcomes: Counter[str] = Counter()
        self._port = port
        self._over = False
        self._gone = 0
        self._came = asyncio.Event()

    async def answered(self, more: int) -> None:
        """Wait for so many further answers."""
        wanted = self.outcomes["whole 200"] + more
        while self.outcomes["whole 200"] < wanted:
            self._came.clear()
            await self._came.wait()

    async def end(self, clients: int) -> None:
        """Let so many clients have their last answers."""
        self._over = True
        while self._gone < clients:
            self._came.clear()
            await self._came.wait()

    async def client(self, *, stream: bool) -> None:
        while not self._over:
            async with Client(self._port) as client:
                answer = await client.request("POST", ROUTE, call(ROUTE, "planner", stream=stream))
            if answer.status == 503:
                self.outcomes[f"{answer.json['reason']} 503"] += 1
            else:
                whole = answer.whole and b'"done":true' in answer.body
                self.outcomes[f"{'whole' if whole else 'cut'} {answer.status}"] += 1
            self._came.set()
        self._gone += 1
        self._came.set()


async def test_a_reader_of_the_log_that_leaves_changes_nothing(tmp_path: Path) -> None:
    async with ollama("--tokens", "2") as (upstream, _):
        async with serving(upstream, tmp_path, closed_stdout=True) as proxy:
            async with proxy.client() as client:
                for _ in range(3):
                    answer = await client.request("POST", ROUTE, call(ROUTE, "planner"))
                    assert answer.status == 200
            async with proxy.admin() as admin:
                records = (await admin.request("GET", "/requests")).json
                assert len(records) == 3
            proxy.signal(signal.SIGTERM)
            code, _, talk = await proxy.outcome()
        assert code == 0
        assert "Traceback" not in talk
        assert "BrokenPipe" not in talk


UNWRITABLE = {
    "stderr closed": "2>&-",
    "stderr full": "2>/dev/full",
    "stderr not for writing": "2</dev/null",
    "stdout closed": ">&-",
    "stdout full": ">/dev/full",
    "both full": ">/dev/full 2>/dev/full",
    "both closed": ">&- 2>&-",
    "all closed": "<&- >&- 2>&-",
}


@pytest.mark.parametrize("redirections", UNWRITABLE.values(), ids=UNWRITABLE)
async def test_streams_that_cannot_be_written_change_nothing(
    tmp_path: Path, redirections: str
) -> None:
    async with (
        ollama("--token-rate", "50") as (upstream, _),
        serving_unheard(upstream, tmp_path, wrapper=redirected(redirections)) as proxy,
    ):
        await serves_and_drains(proxy)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux")
async def test_no_socket_and_no_file_of_the_state_becomes_a_standard_stream(
    tmp_path: Path,
) -> None:
    async with (
        ollama() as (upstream, _),
        serving_unheard(upstream, tmp_path, wrapper=redirected("<&- >&- 2>&-")) as proxy,
    ):
        links = [os.readlink(f"/proc/{proxy.child.pid}/fd/{number}") for number in range(3)]  # noqa: PTH115
        assert links == ["/dev/null"] * 3


@pytest.mark.parametrize("which", ["stdout", "stderr", "both"])
async def test_a_reader_that_has_gone_before_the_start_changes_nothing(
    tmp_path: Path, which: str
) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    async with (
        ollama("--token-rate", "50") as (upstream, _),
        serving_unheard(upstream, tmp_path, **to(write_end, which)) as proxy,
    ):
        os.close(write_end)
        await serves_and_drains(proxy)


@pytest.mark.parametrize("which", ["stdout", "stderr", "both"])
async def test_a_reader_that_goes_in_mid_life_changes_nothing(tmp_path: Path, which: str) -> None:
    read_end, write_end = os.pipe()
    async with (
        ollama("--token-rate", "50") as (upstream, _),
        serving_unheard(upstream, tmp_path, **to(write_end, which)) as proxy,
    ):
        os.close(write_end)
        async with proxy.client() as client:
            await client.request("POST", ROUTE, call(ROUTE, "planner", options=FEW))
        os.close(read_end)
        await serves_and_drains(proxy)


@pytest.mark.parametrize("which", ["stdout", "stderr", "both"])
@pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "non-blocking"])
async def test_a_reader_that_stops_reading_changes_nothing(
    tmp_path: Path, which: str, *, blocking: bool
) -> None:
    """As a terminal after Ctrl-S; the pipe is full from the start."""
    read_end, write_end = os.pipe()
    fill(write_end)
    os.set_blocking(write_end, blocking)
    async with (
        ollama("--token-rate", "50") as (upstream, _),
        serving_unheard(upstream, tmp_path, **to(write_end, which)) as proxy,
    ):
        os.close(write_end)
        await serves_and_drains(proxy)
    os.close(read_end)


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs Linux")
async def test_a_disk_that_is_full_changes_nothing(tmp_path: Path) -> None:
    """Both streams are files, and no file of the process may grow."""
    with (tmp_path / "log").open("wb") as log:
        how = {"stdout": log.fileno(), "stderr": log.fileno()}
        async with (
            ollama("--token-rate", "50") as (upstream, _),
            serving_unheard(upstream, tmp_path, **how) as proxy,
        ):
            _, hard = resource.prlimit(proxy.child.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(proxy.child.pid, resource.RLIMIT_FSIZE, (0, hard))
            await serves_and_drains(proxy)
    assert b"Traceback" not in (tmp_path / "log").read_bytes()


FEW = {"num_predict": 3}


def to(fd: int, which: str) -> dict[str, int]:
    """Which of the streams go there; the other one goes nowhere."""
    nowhere = asyncio.subprocess.DEVNULL
    return {name: fd if which in {name, "both"} else nowhere for name in ("stdout", "stderr")}


def fill(fd: int) -> None:
    os.set_blocking(fd, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(fd, b"x" * 4096)


async def serves_and_drains(proxy: Process) -> None:
    """A call, then a stream that is under way when SIGTERM comes and ends whole; exit code 0."""
    async with proxy.client() as client:
        answer = await client.request("POST", ROUTE, call(ROUTE, "planner", options=FEW))
        assert (answer.status, answer["X-LLM-Role"]) == (200, "PLANNER")
        await begin_stream(client, tokens=30)
        proxy.signal(signal.SIGTERM)
        assert client.reader is not None
        rest = await client.reader.read()
        assert b'"done":true' in rest
    assert await proxy.ended() == 0


async def test_text_and_json_lines(tmp_path: Path) -> None:
    async with ollama("--tokens", "2") as (upstream, _):
        for kind in ("text", "json"):
            options = ("--log-format", kind)
            async with serving(upstream, tmp_path, *options) as proxy, proxy.client() as client:
                await client.request("POST", ROUTE, call(ROUTE, "planner"))
                line = await proxy.said()
                if kind == "json":
                    assert orjson.loads(line)["llm_role"] == "PLANNER"
                else:
                    assert "planner -> qwen3:4b" in line
                    assert not line.startswith("{")


async def test_settings_come_from_the_environment_too(tmp_path: Path) -> None:
    env = {
        "MODELSPLIT_LISTEN": "127.0.0.1:0",
        "MODELSPLIT_ADMIN": "127.0.0.1:0",
        "MODELSPLIT_UPSTREAM": "127.0.0.1:9",
        "MODELSPLIT_STATE": str(tmp_path),
        "OLLAMA_HOST": "http://10.0.0.1:1",
    }
    async with spawned("modelsplit_proxy", "serve", env=env) as proxy:
        assert "in front of http://127.0.0.1:9" in await proxy.talk(" listens on ")
        assert (tmp_path / "modelsplit.sqlite3").exists()
