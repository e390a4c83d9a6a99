"""What clients report of jobs, read from the bodies they post: bytes in, values out."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from modelsplit_policy.failures import said_back
from modelsplit_policy.jobs import TOOL_MS_MAX, WHY_MAX
from modelsplit_policy.vocabulary import JobState
from modelsplit_proxy.http.write_guard import BODY_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping

JOB_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


class ReportError(Exception):
    """A report that cannot be taken. The text names the field and says what would do."""


class ToolReport(NamedTuple):
    """One run of a tool that has ended."""

    name: str
    duration_us: int
    ok: bool


class FinishReport(NamedTuple):
    """A job is over: OK or FAILED, and why."""

    verdict: JobState
    why: str | None


def check_id(job_id: str) -> str:
    """Raises ReportError where it is none that a call could name."""
    if JOB_ID.fullmatch(job_id) is None:
        raise ReportError(
            f'id "{said_back(job_id)}" cannot be a job\'s; use 1 to 128 letters, digits, '
            "'.', '_', ':' or '-'"
        )
    return job_id


def read_start(raw: bytes) -> None:
    """Nothing is said but that it starts. Raises ReportError."""
    _fields(raw, ())


def read_tool(raw: bytes) -> ToolReport:
    """Raises ReportError."""
    fields = _fields(raw, ("name", "duration_ms", "ok"))
    name = fields.get("name")
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise ReportError(f"name {_shown(name)}: use 1 to 64 letters, digits, '.', '_' or '-'")
    return ToolReport(name, _duration_us(fields.get("duration_ms")), _flag(fields, "ok"))


def read_finish(raw: bytes) -> FinishReport:
    """Raises ReportError."""
    fields = _fields(raw, ("ok", "why"))
    why = fields.get("why")
    if why is not None and (not isinstance(why, str) or len(why) > WHY_MAX):
        raise ReportError(f"why {_shown(why)}: send a text of at most {WHY_MAX} characters")
    return FinishReport(JobState.OK if _flag(fields, "ok") else JobState.FAILED, why)


def _fields(raw: bytes, known: tuple[str, ...]) -> Mapping[str, Any]:
    if len(raw) > BODY_MAX:
        raise ReportError(f"body: {len(raw)} bytes are more than {BODY_MAX}")
    try:
        fields = orjson.loads(raw) if raw.strip() else {}
    except orjson.JSONDecodeError:
        raise ReportError("body: it is not JSON; send an object") from None
    if not isinstance(fields, dict):
        raise ReportError("body: it is not an object; send one")
    for name in fields:
        if name not in known:
            those = f"known are {', '.join(known)}" if known else "there are none"
            raise ReportError(f'"{said_back(name, 20)}" is no field of this report; {those}')
    return fields


def _duration_us(value: object) -> int:
    if (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and 0 <= value < TOOL_MS_MAX
    ):
        return round(value * 1000)
    raise ReportError(
        f"duration_ms {_shown(value)}: send milliseconds, 0 to less than {TOOL_MS_MAX}"
    )


def _flag(fields: Mapping[str, Any], name: str) -> bool:
    value = fields.get(name)
    if not isinstance(value, bool):
        raise ReportError(f"{name} {_shown(value)}: send true or false")
    return value


def _shown(value: Any) -> str:
    if value is None:
        return "is missing"
    if isinstance(value, str):
        return f'"{said_back(value)}"'
    return said_back(orjson.dumps(value).decode())
