"""What a provider says of its own limits, as ``RateLimit`` lines beside those of our budgets."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from modelsplit_proxy.http.upstream import UpstreamHead

_KINDS: Final = (b"requests", b"tokens", b"input-tokens", b"output-tokens")
_COUNT: Final = re.compile(rb"[0-9]{1,15}")
_MOMENT_MAX: Final = 40


def lines(head: UpstreamHead, wall: float) -> list[bytes]:
    """One line of each kind of limit that it tells of. ``wall``: seconds since 1970."""
    said = []
    for kind in _KINDS:
        name = b"anthropic-ratelimit-" + kind
        most, left = head.get(name + b"-limit"), head.get(name + b"-remaining")
        if _COUNT.fullmatch(left) is None:
            continue
        if _COUNT.fullmatch(most) is not None:
            said.append(b'RateLimit-Policy: "anthropic-%b";q=%b\r\n' % (kind, most))
        reset_s = _seconds_until(head.get(name + b"-reset"), wall)
        until = b"" if reset_s is None else b";t=%d" % reset_s
        said.append(b'RateLimit: "anthropic-%b";r=%b%b\r\n' % (kind, left, until))
    return said


def _seconds_until(moment: bytes, wall: float) -> int | None:
    """Whole seconds until a moment in RFC 3339; None: it cannot be read."""
    if not moment or len(moment) > _MOMENT_MAX:
        return None
    try:
        until = datetime.fromisoformat(moment.decode("latin-1"))
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0, round(until.timestamp() - wall))
