"""A JSON object's top-level fields, as Go's encoding/json reads them into a struct.

Ollama is written in Go, so what a request means is what Go makes of it. Where another
decoder would read the same bytes differently, a client could have one thing decided here
and another done there. Go's reading, as far as a request's fields go:

- A key matches a field if both are equal under Unicode's simple case folding, so the long
  s is an ``s`` and the Kelvin sign a ``k``. Keys of a map, such as those inside
  ``options``, match exactly.
- A key may come more than once. The last one wins; two objects for one map are merged.
- Whatever follows the object is not read.
- A byte that is not UTF-8, and half a surrogate pair, is U+FFFD.
- Numbers may be of any size, and values nested 10,000 deep.

Everything that reads a field of a request reads it through ``Fields``. ``Scan`` finds fields
in the bytes themselves, a bounded step at a time, whatever is in them.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

# The request fields that anything here reads; all others are passed over.
NAMES: Final = frozenset(
    {
        "context",
        "destination",
        "format",
        "from",
        "keep_alive",
        "max_completion_tokens",
        "max_output_tokens",
        "max_tokens",
        "messages",
        "model",
        "name",
        "options",
        "output_config",
        "output_format",
        "prompt",
        "raw",
        "reasoning",
        "reasoning_effort",
        "response_format",
        "source",
        "stream",
        "template",
        "text",
        "think",
        "thinking",
        "tools",
    }
)
# Fields that may be given twice: which one is read changes nothing that matters here.
_EITHER: Final = frozenset({"reasoning", "reasoning_effort", "think", "thinking", "tools"})
# Fields of which only counts whether they are empty.
_CONTENT: Final = frozenset({"context", "messages", "prompt", "raw", "template", *_EITHER})
_LONGEST_CONTENT: Final = 256
# A field that is longer is not decoded. A schema may be; what bounds a call may not.
_LONGEST_VALUE: Final = 256 * 1024
_LONGEST_TOGETHER: Final = 4 * 1024 * 1024
_MAY_BE_LONGER: Final = frozenset(
    {*_CONTENT, "format", "response_format", "text", "output_config", "output_format"}
)
# A key of more bytes, each letter escaped, is none of the above.
_LONGEST_KEY: Final = 6 * max(map(len, NAMES)) + 2
# More fields of those names than any body has that is decoded at once.
_MOST_MEMBERS: Final = 50_000

LARGE: Final = object()
"""What a value stands for that is too long, or too deep, to be decoded.

It is true, and equals nothing.
"""

_MAX_DEPTH: Final = 10_000
_WINDOW: Final = 64 * 1024
_SMALLEST_WINDOW: Final = 256
_LONGEST_BLANK: Final = 1024 * 1024
# So many are taken apart before the next is tried, after not even the smallest window did.
_PAUSE: Final = 32
# What a step of one token counts, in bytes of a step through larger pieces.
_TOKEN_COST: Final = 256

_BLANKS: Final = frozenset({b" ", b"\t", b"\r", b"\n"})
_CONTROL: Final = bytes(range(0x20))
# Possessively: every step that could be taken back would be remembered.
_INSIDE: Final = rb'(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+'
_SCALAR: Final = rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]++)?+|true|false|null"
_SIMPLE: Final = rb'(?:"%b"|%b|\[\]|\{\})' % (_INSIDE, _SCALAR)
_BLANK: Final = rb"[ \t\r\n]*+"
_SPACE: Final = re.compile(_BLANK)
_TEXT: Final = re.compile(_INSIDE)
_PLAIN: Final = re.compile(_SCALAR)
# Simple values with the comma after each, and pairs of a key and such a value.
_ITEMS: Final = re.compile(rb"(?:%b%b%b,)*+" % (_BLANK, _SIMPLE, _BLANK))
_PAIR: Final = rb'"%b"%b:%b' % (_INSIDE, _BLANK, _BLANK)
_PAIRS: Final = re.compile(rb"(?:%b%b%b%b,)*+" % (_BLANK, _PAIR, _SIMPLE, _BLANK))
_MEMBER: Final = re.compile(rb"%b(?=%b[,}])" % (rb"(%b)(%b)" % (_PAIR, _SIMPLE), _BLANK))
_OBJECT, _ARRAY = ord("{"), ord("[")
_HALF: Final = re.compile("[\ud800-\udfff]")


class GoJsonError(ValueError):
    """The bytes are not read, and the text says why: Go refuses them too, or ``BeyondError``."""


class NotAnObjectError(GoJsonError):
    """The bytes are JSON of another kind."""


class BeyondError(GoJsonError):
    """Go might read the bytes, but nobody could mean them."""


def fold(key: str) -> str:
    """What all spellings of a key have in common that Go takes for one field's name."""
    return key.lower().replace("\u017f", "s")


def field(fields: Mapping[str, Any], name: str) -> Any:
    """A field of a decoded object that Go reads into a struct; None if it is not there."""
    value = None
    for key, given in fields.items():
        if key == name or fold(key) == name:
            value = given
    return value


def mended(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair."""
    return _HALF.sub("\ufffd", text)


class Member(NamedTuple):
    """Where a field stands. ``name``: folded. ``before``: the end of what precedes it.

    The key begins at ``key``; the value is ``start`` to ``end``.
    """

    name: str
    before: int
    key: int
    start: int
    end: int


# --- Finding fields ----------------------------------------------------------------------------


def _refuse(_: str) -> float:
    raise ValueError


# Only to find the end of a value. A float may have any number of digits; NaN is none to Go.
_SKIPPER: Final = json.JSONDecoder(parse_int=float, parse_constant=_refuse)


class Scan:
    """Finds fields by their names among the top-level ones of an object.

    ``members`` are found in their order, each as often as it comes. ``end``: where the last
    member of any name ends, or the opening brace if there is none.

    Values are skipped by the C decoder, a window of the text at a time. What does not fit
    into the window is taken apart here, and the window is halved, so that failing costs no
    more than what was skipped before.
    """

    __slots__ = (
        "_kept",
        "_names",
        "_pause",
        "_raw",
        "_size",
        "_spent",
        "_text",
        "_text_at",
        "end",
        "is_empty",
        "members",
    )

    def __init__(self, raw: bytes, names: frozenset[str] | None = NAMES) -> None:
        """``names``: folded; None for all that there are."""
        self._raw = raw
        self._names = names
        self._size = _WINDOW
        self._kept = 0
        self._pause = 0
        self._spent = 0
        self._text = ""
        self._text_at = 0
        self.members: list[Member] = []
        self.end = 0
        self.is_empty = True

    def run(self) -> Scan:
        """All steps at once. Raises GoJsonError."""
        for _ in self.steps():
            pass
        return self

    def steps(self) -> Generator[None, None, None]:
        """Yields after each step of about a window. Raises GoJsonError."""
        raw = self._raw
        at = self._blank(0)
        if raw[at : at + 1] != b"{":
            yield from self._value(at)
            raise NotAnObjectError(f"the body is a JSON {_kind(raw[at])}, not an object")
        self.end = at + 1
        at = self._blank(at + 1)
        if raw[at : at + 1] == b"}":
            return
        self.is_empty = False
        while True:
            match = _MEMBER.match(raw, at, at + _WINDOW)
            if match is not None:
                start, end = match.span(2)
                self._spent += end - at + _TOKEN_COST
            else:
                start = yield from self._key(at)
                end = yield from self._value(start)
            self._keep(at, start, end)
            if self._is_due():
                yield
            at = self._blank(end)
            sign = raw[at : at + 1]
            if sign == b"}":
                return
            if sign != b",":
                raise self._bad(at)
            at = self._blank(at + 1)

    def _is_due(self) -> bool:
        """Whether a step has been made."""
        if self._spent < _WINDOW:
            return False
        self._spent = 0
        return True

    def _keep(self, key: int, start: int, end: int) -> None:
        before, self.end = self.end, end
        name = _name(self._raw[key:start].rstrip(b": \t\r\n"))
        if self._names is not None and name not in self._names:
            return
        size = end - start
        if size <= _LONGEST_VALUE:
            self._kept += size
        elif name not in _MAY_BE_LONGER:
            raise BeyondError(f'"{name}" is longer than {_LONGEST_VALUE} bytes')
        if len(self.members) >= _MOST_MEMBERS or self._kept > _LONGEST_TOGETHER:
            raise BeyondError(f'"{name}" and others come too often')
        self.members.append(Member(name, before, key, start, end))

    def _key(self, at: int) -> Generator[None, None, int]:
        """Where the value begins whose key begins at ``at``."""
        if self._raw[at : at + 1] != b'"':
            raise self._bad(at)
        at = yield from self._string(at)
        at = self._blank(at)
        if self._raw[at : at + 1] != b":":
            raise self._bad(at)
        return self._blank(at + 1)

    def _value(self, at: int) -> Generator[None, None, int]:
        """Where the value ends that begins at ``at``."""
        raw, opened = self._raw, bytearray()
        while True:
            if self._is_due():
                yield
            first = raw[at : at + 1]
            if first == b'"':
                at = yield from self._string(at)
            elif first not in {b"{", b"["}:
                at = self._plain(at)
            elif (end := self._whole(at)) is not None:
                at = end
            else:
                self._open(opened, first, at)
                at = self._blank(at + 1)
                if raw[at : at + 1] != _closing(opened):
                    at = yield from self._next(at, opened)
                    continue
            at = yield from self._after(at, opened)
            if not opened:
                return at

    def _after(self, at: int, opened: bytearray) -> Generator[None, None, int]:
        """Where the next value begins; where the last one ended if nothing is ``opened`` now."""
        while opened:
            at = self._blank(at)
            sign = self._raw[at : at + 1]
            if sign == b",":
                return (yield from self._next(at + 1, opened))
            if sign != _closing(opened):
                raise self._bad(at)
            opened.pop()
            at += 1
            self._spent += _TOKEN_COST
            if self._is_due():
                yield
        return at

    def _next(self, at: int, opened: bytearray) -> Generator[None, None, int]:
        """Where the next value in the innermost of ``opened`` begins that is not a simple one."""
        simple = _PAIRS if opened[-1] == _OBJECT else _ITEMS
        while (match := simple.match(self._raw, at, at + _WINDOW)) and match.end() > at:
            self._spent += match.end() - at
            at = match.end()
            if self._is_due():
                yield
        at = self._blank(at)
        return (yield from self._key(at)) if opened[-1] == _OBJECT else at

    def _open(self, opened: bytearray, first: bytes, at: int) -> None:
        # The object that the fields stand in is open as well.
        if len(opened) + 1 >= _MAX_DEPTH:
            raise BeyondError(f"values are nested more than {_MAX_DEPTH} deep, at byte {at}")
        self._spent += _TOKEN_COST
        opened += first

    def _whole(self, at: int) -> int | None:
        """Where the object or array ends; None if the window does not hold all of it."""
        if self._pause > 0:
            self._pause -= 1
            return None
        offset = at - self._text_at
        if not 0 <= offset < len(self._text):
            offset = self._look(at)
        while True:
            try:
                _, end = _SKIPPER.raw_decode(self._text, offset)
            except (ValueError, RecursionError):
                self._spent += len(self._text) - offset + _TOKEN_COST
                if offset == 0:
                    self._shrink()
                    return None
                offset = self._look(at)
                continue
            self._size = min(_WINDOW, self._size + end - offset)
            self._spent += end - offset + _TOKEN_COST
            return self._text_at + end

    def _shrink(self) -> None:
        self._size //= 2
        if self._size < _SMALLEST_WINDOW:
            self._size = _SMALLEST_WINDOW
            self._pause = _PAUSE

    def _look(self, at: int) -> int:
        # Latin-1 gives each byte a character, and all that is not ASCII is inside strings.
        self._text = self._raw[at : at + self._size].decode("latin-1")
        self._text_at = at
        return 0

    def _string(self, at: int) -> Generator[None, None, int]:
        """Where the string ends that begins at ``at``."""
        raw = self._raw
        at += 1
        while True:
            end = self._text_end(at)
            self._spent += end - at + _TOKEN_COST
            if raw[end : end + 1] == b'"':
                return end + 1
            if end == at:
                raise self._bad(at)
            at = end
            if self._is_due():
                yield

    def _text_end(self, at: int) -> int:
        """How far from ``at`` all is text, within a window."""
        raw = self._raw
        end = raw.find(b'"', at, at + _WINDOW)
        if end < 0:
            end = min(at + _WINDOW, len(raw))
        # Of text without escapes, which an image is, this needs a quarter of the time.
        text = raw[at:end]
        if b"\\" not in text and len(text.translate(None, _CONTROL)) == len(text):
            return end
        match = _TEXT.match(raw, at, at + _WINDOW)
        return at if match is None else match.end()

    def _plain(self, at: int) -> int:
        """Where a number, true, false or null ends."""
        match = _PLAIN.match(self._raw, at, at + _WINDOW)
        if match is None:
            raise self._bad(at)
        if match.end() == at + _WINDOW:
            raise BeyondError(f"a number of more than {_WINDOW} digits, at byte {at}")
        self._spent += match.end() - at + _TOKEN_COST
        return match.end()

    def _blank(self, at: int) -> int:
        raw = self._raw
        if raw[at : at + 1] not in _BLANKS:
            return at
        match = _SPACE.match(raw, at, at + _LONGEST_BLANK)
        end = at if match is None else match.end()
        if end == at + _LONGEST_BLANK:
            raise BeyondError(f"more than {_LONGEST_BLANK} blanks, at byte {at}")
        return end

    def _bad(self, at: int) -> GoJsonError:
        if at >= len(self._raw):
            return GoJsonError(f"it ends in the middle, after {at} bytes")
        return GoJsonError(f"unexpected byte {self._raw[at]:#04x} at byte {at}")


def _closing(opened: bytearray) -> bytes:
    return b"}" if opened[-1] == _OBJECT else b"]"


def _name(quoted: bytes) -> str:
    """A key as it stands in the bytes, folded; empty if it is certainly none of ``NAMES``."""
    if len(quoted) > _LONGEST_KEY:
        return ""
    if quoted.isascii() and b"\\" not in quoted:
        return quoted[1:-1].lower().decode("ascii")
    key: str = json.loads(_text_of(quoted))
    return fold(key)


def _text_of(raw: bytes) -> str:
    # The escapes stand for single bytes, each of which is a character to Go.
    return mended(raw.decode("utf-8", "surrogateescape"))


def _kind(first: int) -> str:
    kinds = {_ARRAY: "array", ord('"'): "string", ord("n"): "null"}
    kinds |= dict.fromkeys(b"tf", "boolean")
    return kinds.get(first, "number")


# --- Reading fields ------------------------------------------------------------------------------

_SEEN: Final = re.compile(
    rb'"((?i:%b))"' % b"|".join(name.encode() for name in sorted(NAMES - _EITHER))
)
# Escapes of letters and underscores, and the two letters beyond ASCII that fold into it.
_ESCAPED: Final = re.compile(rb"\\u(?:00[4-7][0-9a-fA-F]|212[aA]|017[fF])")
_BEYOND: Final = (b"\xe2\x84\xaa", b"\xc5\xbf")


class Fields:
    """The fields of one object that have a name in ``NAMES``; any other name is a KeyError.

    ``plain``: what an ordinary decoder makes of ``raw``, which keeps one of two equal keys.
    It is trusted where the bytes show that Go would read the same. Without it, ``scan`` says
    where the fields stand.
    """

    __slots__ = ("_given", "_is_plain", "_raw", "_scan", "plain")

    def __init__(self, raw: bytes, plain: dict[str, Any], scan: Scan | None = None) -> None:
        self.plain = plain
        self._raw = raw
        self._scan = scan
        self._given: dict[str, list[Any]] = {}
        self._is_plain: bool | None = None

    def get(self, name: str) -> Any:
        """The last value given; None if there is none."""
        given = self.all(name)
        return given[-1] if given else None

    def all(self, name: str) -> list[Any]:
        """Every value given, in order. ``LARGE`` where one is too long to be decoded."""
        given = self._given.get(name)
        if given is None:
            if name not in NAMES:
                raise KeyError(name)
            self._given[name] = given = self._all(name)
        return given

    def decoded(self, name: str, longest: int) -> list[Any]:
        """As ``all``, looked for anew, for who asks whether something is in there at all.

        ``LARGE`` is what has more than ``longest`` bytes, and what is nested too deep to be
        decoded. An object is a tuple of its pairs, each as often as it comes: a null takes back
        no text that Go read before it.
        """
        members = (member for member in self.scan.members if member.name == name)
        return [
            LARGE if member.end - member.start > longest else _in_pairs(self._raw, member)
            for member in members
        ]

    def _all(self, name: str) -> list[Any]:
        if self._is_plain is None:
            self._is_plain = self._scan is None and is_plain(self.plain) and not _hides(self._raw)
        if self._is_plain:
            return [self.plain[name]] if name in self.plain else []
        return [_decoded(self._raw, member) for member in self.scan.members if member.name == name]

    @property
    def scan(self) -> Scan:
        """Where the fields stand."""
        if self._scan is None:
            self._scan = Scan(self._raw).run()
        return self._scan

    def rewritten(self, changes: Mapping[str, Any]) -> bytes:
        """The same bytes with other values: each field once, where it first stood.

        A field that was not there comes last.
        """
        scan, left = self.scan, dict(changes)
        pieces, at = [], 0
        for member in scan.members:
            if member.name not in changes:
                continue
            is_first = member.name in left
            pieces.append(self._raw[at : member.key if is_first else member.before])
            if is_first:
                pieces.append(_member(member.name, left.pop(member.name)))
            at = member.end
        pieces.append(self._raw[at : scan.end])
        if left and not scan.is_empty:
            pieces.append(b",")
        pieces.append(b",".join(_member(name, value) for name, value in left.items()))
        return b"".join((*pieces, self._raw[scan.end :]))


def is_plain(decoded: Mapping[str, Any]) -> bool:
    """Whether every key that Go would take for one in ``NAMES`` is spelled as there."""
    keys = "".join(decoded)
    if keys.isascii() and keys == keys.lower():
        return True
    return all(key in NAMES or fold(key) not in NAMES for key in decoded)


def _hides(raw: bytes) -> bool:
    """Whether a key might come twice, of which a decoder has kept one."""
    # Most bodies are cleared by this one look, without being taken apart.
    seen = [name.lower() for name in _SEEN.findall(raw)]
    return len(seen) != len(set(seen)) or disguises(raw)


def disguises(raw: bytes) -> bool:
    """Whether a key might be spelled in a way that a search for it does not find."""
    if b"\\" in raw and _ESCAPED.search(raw) is not None:
        return True
    return not raw.isascii() and any(letter in raw for letter in _BEYOND)


def _number(text: str) -> float | None:
    """A number; None for one that is beyond what Go reads, which Ollama refuses."""
    value = float(text)
    return value if math.isfinite(value) else None


def _integer(text: str) -> float | None:
    return int(text) if len(text) <= len(str(-(2**64))) else _number(text)


_VALUES: Final = json.JSONDecoder(parse_int=_integer, parse_float=_number, parse_constant=_refuse)
_IN_PAIRS: Final = json.JSONDecoder(
    parse_int=_integer, parse_float=_number, parse_constant=_refuse, object_pairs_hook=tuple
)


def _decoded(raw: bytes, member: Member) -> Any:
    longest = _LONGEST_CONTENT if member.name in _CONTENT else _LONGEST_VALUE
    if member.end - member.start > longest:
        return LARGE
    return _value(raw, member)


def _value(raw: bytes, member: Member) -> Any:
    value = raw[member.start : member.end]
    try:
        return _VALUES.decode(_text_of(value))
    except RecursionError:
        return _shallow(value) if value.startswith(b"{") else None


def _in_pairs(raw: bytes, member: Member) -> Any:
    try:
        return _IN_PAIRS.decode(_text_of(raw[member.start : member.end]))
    except RecursionError:
        return LARGE


def _shallow(raw: bytes) -> dict[str, Any]:
    """An object's values, with null for each that is too deep for the C decoder.

    To Ollama such a value is either of the wrong type or nobody's.
    """
    values: dict[str, Any] = {}
    for member in Scan(raw, None).run().members:
        value = raw[member.start : member.end]
        key = json.loads(_text_of(_key_of(raw, member)))
        try:
            values[key] = _VALUES.decode(_text_of(value))
        except RecursionError:
            values[key] = None
    return values


def _key_of(raw: bytes, member: Member) -> bytes:
    return raw[member.key : member.start].rstrip(b": \t\r\n")


def _member(name: str, value: Any) -> bytes:
    return b'"%b":%b' % (name.encode(), encoded(value))


def encoded(value: Any) -> bytes:
    """A value as JSON, in ASCII."""
    return json.dumps(value, separators=(",", ":")).encode("ascii")
