"""JSON as Go's encoding/json reads and writes it, because clients can see the difference."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import orjson

Fields = dict[str, Any]
"""A decoded object."""

_SPACE = " \t\r\n"
_LITERALS = {"t": "true", "f": "false", "n": "null"}
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_EOF = "unexpected EOF"
_WIDE = 0x80  # Go escapes what is below as a byte, what is above as a rune


class GoJsonError(ValueError):
    """The body is not JSON; the text is the one Go gives."""


def dumps(value: Any) -> bytes:
    """Encode like Go: `<`, `>` and `&` escaped (observed in native JSON), keys in given order."""
    raw: bytes = orjson.dumps(value)
    for plain, escaped in ((b"<", b"\\u003c"), (b">", b"\\u003e"), (b"&", b"\\u0026")):
        if plain in raw:
            raw = raw.replace(plain, escaped)
    return raw


def loads(data: bytes) -> Any:
    """Decode the first JSON value.

    Observed: what follows the value is ignored, keys compare without case, the last duplicate wins.
    Raises GoJsonError, with the text "EOF" for an empty body.
    """
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return _slow(data)
    if isinstance(value, dict) and any(key != fold_key(key) for key in value):
        return _slow(data)
    return value


def _slow(data: bytes) -> Any:
    text = data.decode("utf-8", "replace").lstrip(_SPACE)
    if not text:
        raise GoJsonError("EOF")
    # Go reports the offending byte as if it were Latin-1 (observed with a byte order mark).
    _Scanner(data.decode("latin-1")).value()
    decoder = json.JSONDecoder(strict=False, object_pairs_hook=_in_order, parse_float=_float)
    value, _ = decoder.raw_decode(text)
    return fold(value)


def _float(raw: str) -> float:
    value = float(raw)
    if math.isinf(value):
        raise GoJsonError(f"json: cannot unmarshal number {raw} into Go value of type float64")
    return value


def _in_order(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Keep a repeated key at its last place, so that folding lets the last spelling win."""
    ordered: dict[str, Any] = {}
    for key, value in pairs:
        ordered.pop(key, None)
        ordered[key] = value
    return ordered


def fold(value: Any) -> Any:
    """Fold the keys of one object; a later spelling of the same key wins."""
    if not isinstance(value, dict):
        return value
    folded: dict[str, Any] = {}
    for key, item in value.items():
        folded[fold_key(key)] = item
    return folded


def fold_key(key: str) -> str:
    """What Go takes for the same key: case does not count, nor does the long form of an s."""
    return key.lower().replace("\u017f", "s")


def kind(value: Any) -> str:
    """The name Go gives to a JSON value's type in its errors."""
    names: tuple[tuple[type, str], ...] = (
        (bool, "bool"),
        (str, "string"),
        (int, "number"),
        (float, "number"),
        (list, "array"),
        (dict, "object"),
    )
    return next((name for type_, name in names if isinstance(value, type_)), "null")


def _shown(char: str) -> str:
    """One byte as Go quotes it."""
    if char == "'":
        return "\\'"
    if char.isprintable():
        return char
    code = ord(char)
    escaped = f"\\x{code:02x}" if code < _WIDE else f"\\u{code:04x}"
    return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(char, escaped)


class _Scanner:
    """Walks one JSON value only to find the first byte Go would refuse."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def _peek(self) -> str:
        while self._at < len(self._text) and self._text[self._at] in _SPACE:
            self._at += 1
        if self._at >= len(self._text):
            raise GoJsonError(_EOF)
        return self._text[self._at]

    def _refuse(self, where: str) -> GoJsonError:
        char = self._text[self._at]
        return GoJsonError(f"invalid character '{_shown(char)}' {where}")

    def value(self) -> None:
        char = self._peek()
        if char == "{":
            self._object()
        elif char == "[":
            self._array()
        elif char == '"':
            self._string()
        elif char in _LITERALS:
            self._literal(_LITERALS[char])
        else:
            self._number()

    def _number(self) -> None:
        match = _NUMBER.match(self._text, self._at)
        if match is None:
            raise self._refuse("looking for beginning of value")
        self._at = match.end()

    def _literal(self, word: str) -> None:
        for expected in word:
            if self._at >= len(self._text):
                raise GoJsonError(_EOF)
            if self._text[self._at] != expected:
                raise self._refuse(f"in literal {word} (expecting '{expected}')")
            self._at += 1

    def _string(self) -> None:
        self._at += 1
        while self._at < len(self._text):
            char = self._text[self._at]
            self._at += 2 if char == "\\" else 1
            if char == '"':
                return
        raise GoJsonError(_EOF)

    def _array(self) -> None:
        self._at += 1
        if self._peek() == "]":
            self._at += 1
            return
        while True:
            self.value()
            if self._after("after array element", "]"):
                return

    def _object(self) -> None:
        self._at += 1
        if self._peek() == "}":
            self._at += 1
            return
        while True:
            if self._peek() != '"':
                raise self._refuse("looking for beginning of object key string")
            self._string()
            if self._peek() != ":":
                raise self._refuse("after object key")
            self._at += 1
            self.value()
            if self._after("after object key:value pair", "}"):
                return

    def _after(self, where: str, end: str) -> bool:
        char = self._peek()
        if char not in (",", end):
            raise self._refuse(where)
        self._at += 1
        return char == end
