"""Recorded transcripts of a real server: reading them, and normalising what may differ."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "transcripts"
_END = re.compile(r"^\[(?:curl )?exit \d+\]$", re.MULTILINE)
_FLAGS = {"--path-as-is", "--http1.0"}


@dataclass
class Recorded:
    """One curl command and what came back, byte for byte but for chunk borders."""

    command: str
    method: str = "GET"
    target: str = "/"
    version: str = "1.1"
    headers: list[str] = field(default_factory=list)
    data: str | None = None
    status_line: str = ""
    answer_headers: list[tuple[str, str]] = field(default_factory=list)
    body: str = ""

    def request(self) -> bytes:
        """The bytes curl sent, User-Agent aside."""
        lines = [f"{self.method} {self.target} HTTP/{self.version}"]
        if not any(line.lower().startswith("host:") for line in self.headers):
            lines.append("Host: 127.0.0.1:11434")
        lines += ["Accept: */*", *self.headers]
        data = (self.data or "").encode("utf-8", "surrogateescape")
        if "Transfer-Encoding: chunked" in self.headers:
            data = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)
        elif self.data is not None:
            lines.append(f"Content-Length: {len(data)}")
        return "\r\n".join([*lines, "", ""]).encode() + data


def load(name: str) -> list[Recorded]:
    """The replayable records of one transcript, in order."""
    text = (FOLDER / f"{name}.txt").read_text("utf-8")
    records = []
    for block in _END.split(text):
        head, _, rest = block.lstrip("\n").removesuffix("\n").partition("\n")
        # A cut line, a verbose trace or a refused protocol is no request one can repeat.
        if head.startswith("$ curl -sS") and "…[" not in head and rest.startswith("HTTP/"):
            records.append(_parse(head[2:], rest))
    assert records, name
    return records


def _parse(command: str, rest: str) -> Recorded:
    record = Recorded(command)
    words = iter(shlex.split(command)[1:])
    method = ""
    for word in words:
        if word == "-X":
            method = next(words)
        elif word == "-H":
            record.headers.append(next(words))
        elif word in ("-d", "--data-binary"):
            record.data = next(words)
            record.method = "POST"
        elif word.startswith("http://"):
            record.target = "/" + word.split("/", 3)[3]
        elif word in _FLAGS:
            record.version = "1.0" if word == "--http1.0" else record.version
        elif word.startswith("-sSI"):
            record.method = "HEAD"
    record.method = method or record.method
    head, _, body = rest.partition("\n\n")
    record.status_line, *lines = head.split("\n")
    record.answer_headers = [
        (name, value.strip()) for name, _, value in (line.partition(":") for line in lines)
    ]
    record.body = body
    return record


_FIXED = (
    (re.compile(r"req_[0-9a-f]{24}"), "req_ID"),
    (re.compile(r"\d{4}-\d\d-\d\dT[0-9:.]+Z"), "TIME"),
)
# The values of these keys are part of the protocol, whatever the model babbles.
_KEPT_NAMES = (
    "model name done done_reason object type role finish_reason stop_reason status error "
    "system_fingerprint size_vram format parent_model service_tier truncation tool_choice "
    "owned_by index"
)
_KEPT = frozenset(_KEPT_NAMES.split())


def exact(body: str) -> str:
    for pattern, word in _FIXED:
        body = pattern.sub(word, body)
    return body


def shape(body: str) -> list[Any]:
    """Lines as shapes; a run of the same shape counts once."""
    shapes: list[Any] = []
    for line in body.splitlines():
        item = _line_shape(line)
        if not shapes or shapes[-1] != item:
            shapes.append(item)
    return shapes


def _line_shape(line: str) -> Any:
    prefix, _, rest = line.partition("data: ") if line.startswith("data: ") else ("", "", line)
    try:
        return [prefix, _value_shape("", json.loads(rest))]
    except json.JSONDecodeError:
        return line


def _value_shape(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        return [[name, _value_shape(name, item)] for name, item in value.items()]
    if isinstance(value, list):
        items = [_value_shape(key, item) for item in value]
        return ["list", *[item for i, item in enumerate(items) if item not in items[:i]]]
    if key in _KEPT or value is None or isinstance(value, bool):
        return value
    return "number" if isinstance(value, int | float) else type(value).__name__
