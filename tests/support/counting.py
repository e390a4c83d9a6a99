"""Counting function calls on the event loop's thread, while real sockets ask for work.

A count is the same on a busy machine as on an idle one, which a time is not. Only the loop's
thread is counted: the upstream and the client are plain sockets in threads of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from support.hooks import Hook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from io import BufferedReader
    from types import CodeType, FrameType

ANSWER = (
    b'{"model":"qwen3:4b","created_at":"2026-11-23T05:00:00.0Z","response":"%b","done":true,'
    b'"done_reason":"stop","context":[%b],"total_duration":1843929041,"load_duration":51293042,'
    b'"prompt_eval_count":42,"prompt_eval_duration":113000000,"eval_count":57,'
    b'"eval_duration":1678000000}' % (b"x" * 232, b",".join([b"128009"] * 30))
)
PIECE = b'{"model":"qwen3:4b","created_at":"2026-11-23T05:00:00.0Z","response":"a","done":false}\n'
LAST = PIECE.replace(b"false", b"true")
# What the proxy asks on its own account, answered all at once.
_OWN = b'{"version":"0.0.0","models":[{"name":"qwen3:4b"}]}'
_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"


@dataclass
class Calls:
    """A profile function. ``python`` and ``native``: calls by what was called.

    ``within``: count only what happens inside this function, itself included; ``rounds``: the
    totals after each time that it has run.
    """

    within: CodeType | None = None
    python: Counter[str] = field(default_factory=Counter)
    native: Counter[str] = field(default_factory=Counter)
    rounds: list[tuple[int, int]] = field(default_factory=list)
    _inside: int = 0

    def __call__(self, frame: FrameType, event: str, called: object) -> None:
        if frame.f_code is self.within and event in {"call", "return"}:
            self._inside += 1 if event == "call" else -1
            if not self._inside:
                self.rounds.append(self.totals)
        if self.within is not None and not self._inside:
            return
        if event == "call":
            code = frame.f_code
            self.python[f"{_module(code)} {code.co_qualname}"] += 1
        elif event == "c_call":
            self.native[getattr(called, "__qualname__", str(called))] += 1

    @property
    def totals(self) -> tuple[int, int]:
        return self.python.total(), self.native.total()

    @contextlib.contextmanager
    def counting(self) -> Iterator[Calls]:
        """In this thread, until the block ends."""
        with Hook(self):
            yield self


@contextlib.contextmanager
def counted_turns() -> Iterator[list[int]]:
    """Function calls of the product in each turn of the running loop, native ones included.

    In a turn of the loop everybody who is ready runs once; a step of work that is not
    interrupted is within one. How often the loop turns while there is nothing to do depends on
    the machine: those turns count nothing.
    """
    loop, turns = asyncio.get_running_loop(), [0]
    ended = False

    def count(frame: FrameType, event: str, _: object) -> None:
        if event in {"call", "c_call"}:
            turns[-1] += str(frame.f_globals.get("__name__")).startswith("modelsplit_")

    def turn() -> None:
        if not ended:
            if turns[-1]:
                turns.append(0)
            loop.call_soon(turn)

    loop.call_soon(turn)
    try:
        with Hook(count):
            yield turns
    finally:
        ended = True


def _module(code: CodeType) -> str:
    path = code.co_filename.replace("\\", "/").split("/")
    return "/".join(path[-2:]).removesuffix(".py")


class Upstream:
    """An Ollama of few words, in threads. A stream's next piece goes when ``more`` says so."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.more = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._start(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join()

    def _start(self, run: Callable[..., None], *values: socket.socket) -> None:
        thread = threading.Thread(target=run, args=values, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets.append(sock)
            self._start(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError), sock.makefile("rb") as lines:
            while head := _head(lines):
                body = lines.read(_length(head))
                if head.startswith(b"GET"):
                    sock.sendall(_whole(_OWN))
                elif b'"stream":true' in body:
                    pieces = int(body.rpartition(b"#")[0].rpartition(b"#")[2])
                    body = b""  # not to be taken for what the proxy keeps
                    self._stream(sock, pieces)
                else:
                    sock.sendall(_whole(ANSWER))

    def _stream(self, sock: socket.socket, pieces: int) -> None:
        sock.sendall(_STREAM + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(pieces):
            self.more.acquire()
            sock.sendall(_chunk(PIECE))
        self.more.acquire()
        sock.sendall(_chunk(LAST) + b"0\r\n\r\n")


class Asker:
    """A client that waits for each answer. Blocking: for a thread."""

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port))
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def ask(self, times: int = 1) -> None:
        """So many calls that are answered whole, one after another."""
        for _ in range(times):
            self._sock.sendall(_request(b"false", b""))
            self._until(b'"eval_duration":1678000000}')

    def begin(self, pieces: int, longer: int = 0) -> None:
        """Ask for a stream of so many pieces; ``take`` them one by one.

        ``longer``: bytes that the prompt has more than usual.
        """
        self._sock.sendall(_request(b"true", b"%b#%d#" % (b"x" * longer, pieces)))

    def take(self, more: threading.Semaphore, pieces: int) -> None:
        """Each piece is sent only when the one before has come: one read a piece."""
        for _ in range(pieces):
            more.release()
            self._until(PIECE)

    def end(self, more: threading.Semaphore) -> None:
        more.release()
        self._until(b"\r\n0\r\n\r\n")

    def _until(self, end: bytes) -> None:
        got = b""
        while end not in got:
            data = self._sock.recv(65536)
            assert data, f"the proxy hung up after {got!r}"
            got += data


def _request(stream: bytes, more: bytes) -> bytes:
    body = b'{"model":"qwen3:4b","prompt":"%b%b","stream":%b,"options":{"temperature":0.7}}'
    body %= (b"Explain in plain words why the sky is blue. " * 6, more, stream)
    return (
        b"POST /api/generate HTTP/1.1\r\nHost: 127.0.0.1:11435\r\nUser-Agent: ollama-python/0.6\r\n"
        b"Accept: application/json\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )


def _head(lines: BufferedReader) -> bytes:
    head = b""
    while line := lines.readline():
        head += line
        if line == b"\r\n":
            return head
    return b""


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


def _whole(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    return head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
