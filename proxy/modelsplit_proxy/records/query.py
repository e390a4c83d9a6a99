"""Which calls or jobs somebody asks for: words in, a WHERE clause out, or a yes or no to one.

The same words serve the admin route's query and the command line's flags.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from modelsplit_policy.failures import ErrorCode, said_back
from modelsplit_policy.vocabulary import JobState, Role
from modelsplit_proxy.records.query_error import RUNNING, QueryError

if TYPE_CHECKING:
    from collections.abc import Mapping

_AGO: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(s|m|h|d)")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_YES: Final = frozenset({"1", "true", "yes", ""})
_NO: Final = frozenset({"0", "false", "no"})
# What a call that has not ended is told as.
_WELL: Final = frozenset({"ok", RUNNING})
_ENDINGS: Final = ("ok", "client_gone", RUNNING)
WORDS: Final = ("role", "model", "client", "job", "outcome", "failed", "since", "until")
JOB_WORDS: Final = ("state", "since", "until")


@dataclass(frozen=True, slots=True)
class Query:
    """Calls that came within a time (wall microseconds) and are like this. None: any."""

    role: Role | None = None
    model: str | None = None
    client: str | None = None
    job: str | None = None
    outcome: str | None = None
    failed: bool = False
    since_us: int | None = None
    until_us: int | None = None

    def fits(self, call: Mapping[str, Any]) -> bool:
        """Whether a call is one of them; ``call``: as its log line has it."""
        started_at = datetime.fromisoformat(call["started_at"]).timestamp() * 1e6
        failed = call["outcome"] not in _WELL
        wanted = (
            (self.role, (call["llm_role"],)),
            (self.model, (call["llm_model"], call["requested_model"])),
            (self.client, (call["client"],)),
            (self.job, (call["job_id"],)),
            (self.outcome, (call["outcome"],)),
            (self.failed or None, (failed,)),
        )
        return (
            all(value is None or value in has for value, has in wanted)
            and (self.since_us is None or started_at >= self.since_us)
            and (self.until_us is None or started_at < self.until_us)
        )

    def where(self) -> tuple[str, list[object]]:
        """A condition on ``calls`` and its values."""
        parts: list[tuple[str, list[object]]] = []
        if self.role is not None:
            parts.append(("role = ?", [self.role]))
        if self.model is not None:
            parts.append(("(model = ? OR requested_model = ?)", [self.model, self.model]))
        if self.client is not None:
            parts.append(("client = ?", [self.client]))
        if self.job is not None:
            parts.append(("job_id = ?", [self.job]))
        if self.outcome is not None:
            parts.append(("outcome = ?", [self.outcome]))
        if self.failed:
            parts.append(("outcome != 'ok'", []))
        if self.since_us is not None:
            parts.append(("started_us >= ?", [self.since_us]))
        if self.until_us is not None:
            parts.append(("started_us < ?", [self.until_us]))
        text = " AND ".join(part for part, _ in parts) or "1"
        return text, [value for _, values in parts for value in values]


@dataclass(frozen=True, slots=True)
class JobQuery:
    """Jobs last heard of within a time (wall microseconds) and of this state. None: any."""

    state: JobState | None = None
    since_us: int | None = None
    until_us: int | None = None

    def where(self) -> tuple[str, list[object]]:
        """A condition on ``jobs`` and its values."""
        parts: list[tuple[str, object]] = []
        if self.state is not None:
            parts.append(("state = ?", str(self.state)))
        if self.since_us is not None:
            parts.append(("last_us >= ?", self.since_us))
        if self.until_us is not None:
            parts.append(("last_us < ?", self.until_us))
        return " AND ".join(part for part, _ in parts) or "1", [value for _, value in parts]

    def fits(self, state: JobState, last_us: int) -> bool:
        """The same of a job that is in no file."""
        return (
            self.state in {None, state}
            and (self.since_us is None or self.since_us <= last_us)
            and (self.until_us is None or last_us < self.until_us)
        )


def read_job_query(values: Mapping[str, str], now_wall: float) -> JobQuery:
    """Read the words of ``JOB_WORDS``; others are not looked at. Raises QueryError."""
    since_us, until_us = _between(values, now_wall, "job")
    return JobQuery(_job_state(values.get("state")), since_us, until_us)


def read_query(values: Mapping[str, str], now_wall: float) -> Query:
    """Read the words of ``WORDS``; others are not looked at. Raises QueryError."""
    since_us, until_us = _between(values, now_wall, "call")
    return Query(
        role=_role(values.get("role")),
        model=values.get("model"),
        client=values.get("client"),
        job=values.get("job"),
        outcome=_outcome(values.get("outcome")),
        failed=_flag("failed", values.get("failed")),
        since_us=since_us,
        until_us=until_us,
    )


def _between(
    values: Mapping[str, str], now_wall: float, what: str
) -> tuple[int | None, int | None]:
    """``since`` and ``until``, which must leave some time between them."""
    since_us = _moment("since", values.get("since"), now_wall)
    until_us = _moment("until", values.get("until"), now_wall)
    if since_us is not None and until_us is not None and since_us >= until_us:
        since, until = said_back(values["since"], 30), said_back(values["until"], 30)
        text = f'since "{since}" is not before until "{until}": no {what} is between them'
        raise QueryError(text)
    return since_us, until_us


def only(values: Mapping[str, str], known: tuple[str, ...]) -> None:
    """A mistyped filter must not show every call as if all of them fitted. Raises QueryError."""
    for word in values:
        if word not in known:
            raise QueryError(f'"{said_back(word, 20)}" is unknown here; use {", ".join(known)}')


def read_since(values: Mapping[str, str], now_wall: float) -> int:
    """``since`` alone: wall microseconds, 0 if nothing was said. Raises QueryError."""
    return _moment("since", values.get("since"), now_wall) or 0


def read_number(name: str, raw: str | None, default: int, most: int) -> int:
    """A count, ``most`` at most. Raises QueryError."""
    if raw is None:
        return default
    if not raw.isascii() or not raw.isdigit():
        raise QueryError(f'{name} "{said_back(raw, 20)}" is not a number')
    return min(most, int(raw[:9]))


def _role(raw: str | None) -> Role | None:
    if raw is None:
        return None
    known = {role.lower(): role for role in Role}
    role = known.get(raw.lower())
    if role is None:
        names = ", ".join(Role)
        raise QueryError(f'role "{said_back(raw, 20)}" is unknown; the roles are {names}')
    return role


def _job_state(raw: str | None) -> JobState | None:
    if raw is None:
        return None
    try:
        return JobState(raw.lower())
    except ValueError:
        known = ", ".join(JobState)
        raise QueryError(
            f'state "{said_back(raw, 20)}" is unknown; the states are {known}'
        ) from None


def _outcome(raw: str | None) -> str | None:
    if raw is None or raw in _ENDINGS or raw in set(ErrorCode):
        return raw
    known = f"{', '.join(_ENDINGS)} or an error code, as {ErrorCode.OVERLOAD_THROTTLED}"
    raise QueryError(f'outcome "{said_back(raw, 40)}" is unknown; use {known}')


def _flag(name: str, raw: str | None) -> bool:
    if raw is None or raw.lower() in _NO:
        return False
    if raw.lower() in _YES:
        return True
    raise QueryError(f'{name} "{said_back(raw, 20)}" is neither 1 nor 0')


def _moment(name: str, raw: str | None, now_wall: float) -> int | None:
    """``1h`` is an hour ago; else a date or a time, UTC unless it says otherwise."""
    if raw is None:
        return None
    ago = _AGO.fullmatch(raw)
    if ago is not None:
        # Nothing is older than the clock's own beginning.
        return max(0, round((now_wall - float(ago[1]) * _SECONDS[ago[2]]) * 1e6))
    try:
        moment = datetime.fromisoformat(raw)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return round(moment.timestamp() * 1e6)
    except (ValueError, OverflowError):
        raise QueryError(
            f'{name} "{said_back(raw, 30)}" is neither a time ago, as in 90s, 30m, 1h or 7d, '
            "nor a time, as in 2026-11-23T01:30:00Z"
        ) from None
