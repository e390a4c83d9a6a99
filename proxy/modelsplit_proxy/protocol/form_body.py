"""A multipart form's ``model``, found where Ollama finds it, and nowhere else.

Go's parser takes many spellings: a parameter in pieces (``name*0=mo``), line ends without a
return, a transfer encoding, and before all of them a ``model`` in the query. A form that the
two of us could read differently could borrow one model's budget and run another, so only the
plain form that clients send is read, and any other is refused. The value is replaced in
place: every other byte goes out as it came in.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_policy.go_json import Fields
from modelsplit_proxy.http.body import BodyError
from modelsplit_proxy.protocol.json_body import Body

if TYPE_CHECKING:
    from collections.abc import Iterator

_TYPE: Final = re.compile(
    r'multipart/form-data *; *boundary=(?:"([^"\\]{1,70})"|([!#-\'*+.^-~0-9A-Z-]{1,70})) *',
    re.IGNORECASE,
)
_PARTS: Final = 64
_HEAD_BYTES: Final = 8 * 1024
_VALUE_BYTES: Final = 1024
_HEADER: Final = re.compile(rb"([!#-'*+.^-~0-9A-Z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_PARAMETER: Final = re.compile(rb'; *([a-zA-Z]+\*?)=(?:"((?:[^"\\]|\\.)*)"|([^\s";,=\\]+)) *')
_PLAIN_ENCODINGS: Final = frozenset({b"7bit", b"8bit", b"binary"})


def read_form(raw: bytes, content_type: str, query: str) -> Body:
    """Find the model in ``raw``; raise BodyError if another reader could find another one."""
    if any(name == "model" for name, _ in parse_qsl(query, keep_blank_values=True)):
        raise _ambiguous('"model" is in the query, where Ollama would read it; send it in the form')
    match = _TYPE.fullmatch(content_type.strip())
    if match is None:
        raise _bad("the body is not multipart/form-data with a plain boundary")
    parts = _parts(raw, (match[1] or match[2]).encode("latin-1", "replace"))
    spans = [span for head, span in parts if _name(head) == b"model"]
    if not spans:
        return Body(raw, Fields(b"", {}), "", None, quoted=False)
    if len(spans) > 1:
        raise _ambiguous('the form has "model" more than once; send it once')
    start, end = spans[0]
    if end - start > _VALUE_BYTES:
        raise _bad(f'the form\'s "model" is longer than {_VALUE_BYTES} bytes')
    model = raw[start:end].decode("utf-8", "replace")
    return Body(raw, Fields(b"", {"model": model}), model, (start, end), quoted=False)


def _parts(raw: bytes, boundary: bytes) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Each part's head, and where its content stands."""
    delimiter = b"\r\n--" + boundary
    if not raw.startswith(delimiter[2:] + b"\r\n"):
        raise _bad("the form does not begin with its boundary")
    start = len(delimiter)
    for _ in range(_PARTS):
        end = raw.find(delimiter, start)
        blank = raw.find(b"\r\n\r\n", start - 2, start + _HEAD_BYTES)
        if end < 0:
            raise _bad("the form stops in the middle")
        if blank < 0 or blank + 4 > end:
            raise _bad("a part of the form has no head, or one that is too long")
        yield raw[start:blank], (blank + 4, end)
        after = raw[end + len(delimiter) : end + len(delimiter) + 2]
        if after == b"--":
            return
        if after != b"\r\n":
            raise _bad("the form's boundary stands in the middle of a line")
        start = end + len(delimiter) + 2
    raise _bad(f"the form has more than {_PARTS} parts")


def _name(head: bytes) -> bytes:
    """The field's name, by the part's one Content-Disposition; empty for a file."""
    headers = [_HEADER.fullmatch(line) for line in head.split(b"\r\n") if line]
    if None in headers:
        raise _bad("a part of the form has a malformed header")
    pairs = [(header[1].lower(), header[2]) for header in headers if header is not None]
    dispositions = [value for name, value in pairs if name == b"content-disposition"]
    if len(dispositions) != 1:
        raise _bad("a part of the form has no Content-Disposition, or several")
    parameters = _parameters(dispositions[0])
    name = parameters.get(b"name", b"")
    if name != b"model":
        return name
    encodings = {value.lower() for key, value in pairs if key == b"content-transfer-encoding"}
    if parameters.keys() != {b"name"} or encodings - _PLAIN_ENCODINGS:
        raise _bad('the form\'s "model" is not a plain field')
    return name


def _parameters(disposition: bytes) -> dict[bytes, bytes]:
    kind, _, _ = disposition.partition(b";")
    rest = disposition[len(kind) :]
    parameters = {}
    at = 0
    while at < len(rest):
        match = _PARAMETER.match(rest, at)
        if match is None:
            break
        key = match[1].lower()
        if key in parameters or key == b"name*":
            break
        parameters[key] = match[3] if match[2] is None else match[2]
        at = match.end()
    if kind.strip().lower() != b"form-data" or at < len(rest):
        raise _bad("a part of the form has a Content-Disposition that cannot be read")
    return parameters


def _bad(what: str) -> BodyError:
    return BodyError(Failure(ErrorCode.BAD_REQUEST, Reason.BAD_FORM, what, "Bad Form"))


def _ambiguous(what: str) -> BodyError:
    failure = Failure(ErrorCode.BAD_REQUEST, Reason.AMBIGUOUS_MODEL, what, "Ambiguous Model")
    return BodyError(failure)
