"""What goes wrong on purpose, for whom, and how often."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """The faults. Those of a stream strike after `Fault.after` tokens."""

    # instead of an answer
    STATUS = "status"  # `status` with `body`, or the usual error for 503 and 500
    RESET = "reset"  # RST before any byte
    CLOSE = "close"  # FIN before any byte
    HANG = "hang"  # no byte until the client leaves
    GARBAGE = "garbage"  # a status line that is none, then close
    # within a generation
    SLOW_LOAD = "slow_load"  # `seconds` more for a load
    CUT_CLEAN = "cut_clean"  # final chunk, but no done line or end marker
    CUT_FIN = "cut_fin"  # FIN in the middle of the body, no final chunk
    CUT_RST = "cut_rst"  # RST in the middle of the body
    STALL = "stall"  # silence until the client leaves
    ERROR_LINE = "error_line"  # status 200, the dialect's error, clean end
    RUNNER_DIES = "runner_dies"  # as error_line, for every generation on the same runner
    REPEAT_CUTOFF = "repeat_cutoff"  # one token repeated, then a clean end without done
    BAD_SCHEMA = "bad_schema"  # the text is `text`, whatever `format` asked for
    # around an otherwise good answer
    EXTRA_BYTES = "extra_bytes"  # `text` after the response
    MANY_HEADERS = "many_headers"  # `count` more header lines
    BIG_HEADER = "big_header"  # one header value of `count` bytes
    CLOSE_DELIMITED = "close_delimited"  # neither length nor chunks; ends with FIN
    LENGTH_SHORT = "length_short"  # Content-Length smaller than what follows
    LENGTH_LONG = "length_long"  # Content-Length larger than what follows, then FIN
    DRIP = "drip"  # header bytes one at a time, `seconds` apart


INSTEAD = frozenset({Kind.STATUS, Kind.RESET, Kind.CLOSE, Kind.HANG, Kind.GARBAGE})
AROUND = frozenset(
    {
        Kind.EXTRA_BYTES,
        Kind.MANY_HEADERS,
        Kind.BIG_HEADER,
        Kind.CLOSE_DELIMITED,
        Kind.LENGTH_SHORT,
        Kind.LENGTH_LONG,
        Kind.DRIP,
    }
)


@dataclass(slots=True, eq=False)
class Fault:
    """One rule. `times`: how many requests it strikes, None for all; `hits`: struck so far.

    model and path narrow it down; None means any. The other fields belong to the kinds above.
    """

    kind: Kind
    model: str | None = None
    path: str | None = None
    times: int | None = None
    after: int = 3
    status: int = 500
    body: str | None = None
    seconds: float = 0.05
    count: int = 20_000
    text: str = '{"unexpected": true}'
    hits: int = 0

    def __post_init__(self) -> None:
        self.kind = Kind(self.kind)

    def strikes(self, model: str | None, path: str) -> bool:
        spent = self.times is not None and self.hits >= self.times
        other = self.model not in (None, model) or self.path not in (None, path)
        return not spent and not other


class Faults:
    """The rules in force; the first that fits a request strikes it."""

    def __init__(self) -> None:
        self.rules: list[Fault] = []

    def add(self, kind: Kind | str, **fields: object) -> Fault:
        """Add a rule; the fields are those of Fault, e.g. add("stall", after=5, times=1)."""
        fault = Fault(Kind(kind), **fields)  # type: ignore[arg-type]
        self.rules.append(fault)
        return fault

    def remove(self, fault: Fault) -> None:
        self.rules.remove(fault)

    def clear(self) -> None:
        self.rules.clear()

    def take(self, model: str | None, path: str, *, generates: bool) -> Fault | None:
        """The fault for this request, counted as a hit.

        A fault within a generation passes by requests that generate nothing.
        """
        fitting = (rule for rule in self.rules if rule.strikes(model, path))
        fault = next((r for r in fitting if generates or r.kind in INSTEAD | AROUND), None)
        if fault is not None:
            fault.hits += 1
        return fault
