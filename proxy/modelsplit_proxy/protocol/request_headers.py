"""What a client asked of us in its request headers, checked.

All of them are optional and none reaches the upstream. A value we cannot read is refused
rather than guessed at: a limit that was silently ignored is worse than an error.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from modelsplit_policy.failures import ErrorCode, Failure, Reason, said_back
from modelsplit_policy.vocabulary import Purpose
from modelsplit_proxy.http.headers import REQUEST_NAMES, valid_request_id

if TYPE_CHECKING:
    from multidict import CIMultiDictProxy

_NUMBER: Final = re.compile(r"[0-9]{1,9}")
_NAMES: Final = tuple(name.decode() for name in REQUEST_NAMES if name.lower().startswith(b"x-llm-"))
_JOB_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class AskedError(Exception):
    """A header value that cannot be honoured; carries the failure to answer with."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


@dataclass(frozen=True, slots=True)
class Asked:
    """The request headers of one call. Milliseconds; None: not said."""

    role: str = ""
    context: str = ""
    retry_level: int = 0
    escalate: str = ""
    job_id: str | None = None
    purpose: Purpose | None = None
    max_wait_ms: int | None = None
    timeout_ms: int | None = None
    no_fallback: bool = False
    telemetry: bool = False


NOTHING: Final = Asked()


def request_id(headers: CIMultiDictProxy[str]) -> str:
    """The client's own id if it is one we can repeat everywhere, else a new one."""
    raw = headers.get("X-Request-Id")
    if raw is not None and valid_request_id(raw):
        return raw
    return new_id()


def new_id() -> str:
    """32 hex digits: nobody else's, though no secret, so the kernel need not be asked."""
    return f"{random.getrandbits(128):032x}"


def trace_context(headers: CIMultiDictProxy[str]) -> dict[str, str]:
    """The headers of W3C's trace context, by their names in lower case; few or none.

    Two ``traceparent`` are none, as the standard has it.
    """
    parents = headers.getall("traceparent", ())
    if len(parents) != 1:
        return {}
    states = ",".join(headers.getall("tracestate", ()))
    return {"traceparent": parents[0]} | ({"tracestate": states} if states else {})


def read_asked(headers: CIMultiDictProxy[str]) -> Asked:
    """Read the ``X-LLM-*`` request headers; raise AskedError naming the first bad one."""
    if "x-llm-" not in "\n".join(headers).lower():
        return NOTHING
    for name in _NAMES:
        values = headers.getall(name, ())
        if len(set(values)) > 1:
            raise _bad(name, ", ".join(values), "send it once")
    return _asked(headers)


def _asked(headers: CIMultiDictProxy[str]) -> Asked:
    return Asked(
        role=headers.get("X-LLM-Role", ""),
        context=headers.get("X-LLM-Context", ""),
        retry_level=_one_of(headers, "X-LLM-Retry-Level", ("0", "1")),
        escalate=headers.get("X-LLM-Escalate", ""),
        job_id=_job_id(headers),
        purpose=_purpose(headers),
        max_wait_ms=_milliseconds(headers, "X-LLM-Max-Wait-Ms"),
        timeout_ms=_milliseconds(headers, "X-LLM-Timeout-Ms", least=1),
        no_fallback=_one_of(headers, "X-LLM-No-Fallback", ("0", "1")) == 1,
        telemetry=_telemetry(headers),
    )


def _one_of(headers: CIMultiDictProxy[str], name: str, allowed: tuple[str, ...]) -> int:
    raw = headers.get(name, "0")
    if raw not in allowed:
        raise _bad(name, raw, f"send {' or '.join(allowed)}")
    return int(raw)


def _milliseconds(headers: CIMultiDictProxy[str], name: str, *, least: int = 0) -> int | None:
    raw = headers.get(name)
    if raw is None:
        return None
    if _NUMBER.fullmatch(raw) is None or int(raw) < least:
        raise _bad(name, raw, f"send whole milliseconds{', at least 1' if least else ''}")
    return int(raw)


def _telemetry(headers: CIMultiDictProxy[str]) -> bool:
    raw = headers.get("X-LLM-Telemetry")
    if raw is not None and raw.lower() != "body":
        raise _bad("X-LLM-Telemetry", raw, "send body")
    return raw is not None


def _job_id(headers: CIMultiDictProxy[str]) -> str | None:
    raw = headers.get("X-LLM-Job-Id")
    if raw is not None and _JOB_ID.fullmatch(raw) is None:
        raise _bad("X-LLM-Job-Id", raw, "send 1 to 128 letters, digits, '.', '_', ':' or '-'")
    return raw


def _purpose(headers: CIMultiDictProxy[str]) -> Purpose | None:
    raw = headers.get("X-LLM-Purpose")
    if raw is None:
        return None
    try:
        return Purpose(raw)
    except ValueError:
        raise _bad("X-LLM-Purpose", raw, f"send {' or '.join(Purpose)}") from None


def _bad(name: str, raw: str, advice: str) -> AskedError:
    message = f'{name} "{said_back(raw)}" cannot be read; {advice}'
    return AskedError(Failure(ErrorCode.BAD_REQUEST, Reason.BAD_HEADER, message, "Bad Header"))
