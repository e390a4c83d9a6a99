"""JSON of what must be told, whatever is in it: log lines, records, errors, statistics.

orjson raises on integers beyond 64 bits and on half a surrogate pair, and takes the whole line
along. Here such a number is null, unknown, and such half a character is U+FFFD.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_INT_MIN: Final = -(2**63)
_INT_MAX: Final = 2**64 - 1


def dumps(value: Any, option: int = 0) -> bytes:
    """``value`` as JSON. ``option``: orjson's. Of what is no JSON at all, its type is told.

    RecursionError: it is nested deeper than orjson writes, some 250 deep.
    """
    try:
        return orjson.dumps(value, option=option)
    except TypeError:
        plain = _tellable(value)
    try:
        return orjson.dumps(plain, option=option)
    except TypeError as error:  # all that is left for it to refuse
        raise RecursionError(str(error)) from None


def _tellable(value: Any) -> Any:
    match value:
        case None | bool() | float():
            return value
        case str():
            return _SURROGATE.sub("\ufffd", value)
        case int():
            return value if _INT_MIN <= value <= _INT_MAX else None
        case Mapping():
            return {_SURROGATE.sub("\ufffd", str(key)): _tellable(v) for key, v in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_tellable(item) for item in value]
        case _:
            return f"<{type(value).__name__}>"
