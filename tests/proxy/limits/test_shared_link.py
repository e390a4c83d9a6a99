"""The Redis as a proxy asks it: how it is reached, and what makes it lose what it counted."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    InvalidResponse,
    MasterDownError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
)

from modelsplit_proxy.limits.shared_link import SharedLink, in_words, within
from support.ports import kept_port
from support.redis_server import DURABLE, FORGETFUL, Relay, redis_server
from support.sharing import PATIENT_S, is_open, is_told, of, sharing

if TYPE_CHECKING:
    from pathlib import Path

needs_redis = pytest.mark.tools("redis-server")
# What docs/fleet.md says that an ACL user needs.
COMMANDS = "+@hash +@sortedset +@set +del +expire +time +info +eval +evalsha +script|load"


@needs_redis
async def test_over_tls_with_a_name_and_a_password(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    files = ("--tls-cert-file", str(tmp_path / "cert.pem"), "--tls-auth-clients", "no")
    key = ("--tls-key-file", str(tmp_path / "key.pem"))
    user = ("--user", "split", "on", ">secret", "~{test}:*", *COMMANDS.split(), "+config|get")
    with kept_port() as port:
        await over_tls(tmp_path, port, *files, *key, *user)
    assert "next: redis-cli -h 127.0.0.1" in caplog.text
    assert "--tls --user split --askpass ping" in caplog.text
    assert "guess" not in caplog.text
    assert "secret" not in caplog.text


async def over_tls(tmp_path: Path, port: int, *options: str) -> None:
    async with redis_server(tmp_path, *options, tls_port=port):
        url = f"rediss://split:secret@127.0.0.1:{port}/0"
        trusted = f"{url}?ssl_ca_certs={tmp_path / 'ca.pem'}"
        async with sharing(tmp_path, trusted, "a") as a:
            assert [await a.sent(), await a.sent(), await a.sent()] == [None, None, "calls"]
        # Whose certificate nobody has signed that we know is told nothing.
        async with sharing(tmp_path, url, "b") as b:
            assert await b.sent() == "ledger_unavailable"
            assert "certificate" in str(of(b).error)
        wrong = trusted.replace("secret", "guess")
        async with sharing(tmp_path, wrong, "c") as c:
            assert await c.sent() == "ledger_unavailable"
            assert "invalid username-password pair" in str(of(c).error)
            assert "guess" not in str(of(c).error)


@pytest.mark.parametrize("how", ["no handshake", "no answer", "a byte at a time"])
async def test_over_tls_what_never_ends_is_away(tmp_path: Path, how: str) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    met = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        met.set()
        with contextlib.suppress(OSError):
            if how == "a byte at a time":
                writer.write(b"$99999999999\r\n")
            while how == "a byte at a time" and not writer.is_closing():
                writer.write(b"x")
                await asyncio.sleep(0)
            await reader.read()
        writer.close()

    secured = None if how == "no handshake" else context
    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=secured)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        url = f"rediss://split:secret@127.0.0.1:{port}/0?ssl_ca_certs={tmp_path / 'ca.pem'}"
        async with sharing(tmp_path, url, "a", timeout_s=0.2) as a:
            while not met.is_set():
                # The machine was slow.
                await of(a).look_after()
            assert of(a).error == "it is away: it does not answer"
            assert await a.sent() == "ledger_unavailable"


@needs_redis
async def test_what_an_acl_user_may_not_do_is_away(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as server:
        admin: Any = server.client()
        await admin.execute_command(
            *("ACL", "SETUSER", "split", "on", "nopass", "~{test}:*", *COMMANDS.split())
        )
        url = server.url.replace("unix://", "unix://split:x@")
        async with sharing(tmp_path, url, "a") as a:
            assert await a.sent() is None
            await admin.execute_command("ACL", "SETUSER", "split", "resetkeys", "~other:*")
            assert await a.sent() == "ledger_unavailable"
            assert "permission" in str(of(a).error)
            await admin.execute_command("ACL", "SETUSER", "split", "~{test}:*")
            await is_open(a)
            assert [await a.sent(), await a.sent()] == [None, "calls"]
        await admin.aclose()


# What a server, or whatever listens there instead of one, may answer; and what is said of it.
ANSWERS = {
    "a replica": (b"-READONLY You can't write against a read only replica.", "read only replica"),
    "still loading": (b"-LOADING Redis is loading the dataset in memory", "loading the dataset"),
    "a replica without its primary": (b"-MASTERDOWN Link with MASTER is down", "MASTER is down"),
    "a node of a cluster": (b"-MOVED 1234 10.0.0.7:6379", "10.0.0.7:6379"),
    "a node of a broken cluster": (b"-CLUSTERDOWN The cluster is down", "The cluster is down"),
    "no memory": (b"-OOM command not allowed when used memory > 'maxmemory'.", "maxmemory"),
    "too few replicas": (b"-NOREPLICAS Not enough good replicas to write.", "good replicas"),
    "a full disk": (b"-MISCONF Errors writing to the AOF file: No space left", "No space left"),
    "no password given": (b"-NOAUTH Authentication required.", "Authentication required"),
    "may not": (b"-NOPERM User split has no permissions to run 'evalsha'", "no permissions"),
    "a script that hangs": (b"-BUSY Redis is busy running a script.", "busy running a script"),
    "too many clients": (b"-ERR max number of clients reached", "max number of clients"),
    "scripts forgotten": (b"-NOSCRIPT No matching script.", "No matching script"),
    "no error that is known": (b"-WHATEVER", "WHATEVER"),
    "an error that is cut off": (b"-MOVED 1234", "it answers as no Redis does"),
    "a web server": (b"HTTP/1.1 400 Bad Request", "it answers as no Redis does"),
    "no number": (b":abc", "it answers as no Redis does"),
    "no length": (b"*abc", "it answers as no Redis does"),
    "no text": (b"$3\r\n\xff\xfe\xfd", "it answers as no Redis does"),
    "a line without an end": (b"+" + b"x" * 200_000, "it answers as no Redis does"),
    "a list in a list": (b"*1\r\n" * 5000, "it answers as no Redis does"),
    "a length without an end": (b"$99999999999", "it does not answer"),
    "nothing": (b"*-1", "it answers as no Redis does"),
    "a word": (b"+OK", "it answers as no Redis does"),
    "a figure": (b":1", "it answers as no Redis does"),
    "an empty list": (b"*0", "it answers as no Redis does"),
    "half of an answer": (b"*1\r\n$4\r\nfree", "it answers as no Redis does"),
    "another answer": (b"*2\r\n$4\r\nfree\r\n*1\r\n:1", "it answers as no Redis does"),
}


@needs_redis
@pytest.mark.parametrize("what", ANSWERS)
async def test_whatever_it_answers_it_is_away_and_that_is_said(tmp_path: Path, what: str) -> None:
    answer, words = ANSWERS[what]
    async with (
        redis_server(tmp_path) as server,
        Relay(server.socket, tmp_path / "relay.sock") as relay,
        sharing(tmp_path, relay.url, "a") as a,
    ):
        assert await a.sent() is None
        await is_told(a)
        relay.instead = answer + b"\r\n"
        relay.drips = words == "it does not answer"
        if relay.drips:
            of(a)._link.timeout_s = 0.05
        # A call that is under way, and what is done each second.
        assert await a.sent() == "ledger_unavailable"
        errors = [of(a).error]
        await of(a).look_after()
        errors.append(of(a).error)
        for error in errors:
            assert error is not None
            assert words in error
        assert await a.sent() == "ledger_unavailable"
        # As before, once it answers again; what was counted is.
        relay.instead, relay.drips = None, False
        of(a)._link.timeout_s = PATIENT_S
        await is_open(a)
        assert [await a.sent(), await a.sent()] == [None, "calls"]


@needs_redis
@pytest.mark.parametrize(
    ("options", "flaws"),
    [
        (DURABLE, []),
        (FORGETFUL, ["appendonly no", "appendfsync everysec"]),
        (
            ("--appendonly", "yes", "--maxmemory-policy", "allkeys-lru"),
            ["appendfsync everysec", "maxmemory-policy allkeys-lru"],
        ),
    ],
)
async def test_the_start_warns_of_what_the_server_may_lose(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, options: tuple[str, ...], flaws: list[str]
) -> None:
    async with redis_server(tmp_path, *options) as server, sharing(tmp_path, server.url, "a"):
        warnings = [line for line in caplog.messages if "may lose what it counted" in line]
        assert len(warnings) == bool(flaws)
        told = f"({', '.join(flaws)}); it should have appendonly yes, appendfsync always"
        assert all(told in line for line in warnings)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TimeoutError(), "it is away: it does not answer"),
        (ConnectionRefusedError(111, "Connection refused"), "it is away: [Errno 111] Connection"),
    ],
)
def test_what_went_wrong_in_words(error: BaseException, words: str) -> None:
    assert in_words(error).startswith(words)


def _told(answer: asyncio.Future[None]) -> None:
    if not answer.done():
        answer.set_result(None)


async def test_an_answer_that_came_while_the_loop_was_late_is_no_late_answer() -> None:
    loop = asyncio.get_running_loop()
    answer = loop.create_future()
    reader, writer = socket.socketpair()
    with reader, writer:
        loop.add_reader(reader, _told, answer)
        async with within(0.01):
            writer.send(b"x")
            # As a loop that does something else for longer than the bound.
            sum(range(3_000_000))
            await answer
        loop.remove_reader(reader)
    with pytest.raises(TimeoutError):
        async with within(0.0):
            await loop.create_future()


def test_only_an_address_of_a_redis_is_one() -> None:
    with pytest.raises(ValueError, match="scheme"):
        SharedLink("http://127.0.0.1", "p", PATIENT_S)
    assert SharedLink("redis://:secret@h", "p", PATIENT_S).key("x") == "{p}:x"
    assert "secret" not in repr(SharedLink("redis://:secret@h", "p", PATIENT_S))


@pytest.mark.parametrize(
    ("url", "command"),
    [
        ("redis://u:secret@10.0.0.5:6380/0", "redis-cli -h 10.0.0.5 -p 6380 ping"),
        ("rediss://cache", "redis-cli -h cache -p 6379 --tls ping"),
        ("unix:///run/redis.sock", "redis-cli -s /run/redis.sock ping"),
    ],
)
def test_the_next_step_is_to_ask_it_without_a_password(url: str, command: str) -> None:
    assert SharedLink(url, "p", PATIENT_S).step(OSError()) == command


def _while_connecting(cause: Exception) -> RedisError:
    error = RedisError(str(cause))
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "command"),
    [
        (TimeoutError(), "ping"),
        (InvalidResponse("x"), "ping"),
        (AuthenticationError("WRONGPASS"), "--user team --askpass ping"),
        (NoPermissionError("NOPERM"), "acl log 5"),
        (ReadOnlyError("READONLY"), "info replication"),
        (MasterDownError("MASTERDOWN"), "info replication"),
        (BusyLoadingError("LOADING"), "info persistence"),
        (OutOfMemoryError("OOM"), "info memory"),
        (MovedError("1234 10.0.0.7:6379"), "cluster nodes"),
        (ClusterDownError("CLUSTERDOWN"), "cluster info"),
        (_while_connecting(BusyLoadingError("LOADING")), "info persistence"),
        (_while_connecting(ssl.SSLCertVerificationError("by whom?")), "--cacert FILE ping"),
    ],
)
def test_the_next_step_shows_why(error: Exception, command: str) -> None:
    link = SharedLink("rediss://team:secret@h", "p", PATIENT_S)
    assert link.step(error) == f"redis-cli -h h -p 6379 --tls {command}"
