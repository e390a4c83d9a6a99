"""Reports about a job: what is sent to the admin port, and what is said where it is not taken."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from modelsplit_client.errors import CallError, of_response

if TYPE_CHECKING:
    from collections.abc import Mapping

# What modelsplit takes as a job's id, in the header and in its paths.
_JOB_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_WHY_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class Report:
    """One event of a job: ``body`` is posted to ``path`` under the admin address."""

    path: str
    body: Mapping[str, Any]

    @property
    def content(self) -> bytes:
        """The body as JSON. Half a surrogate pair becomes a question mark."""
        return json.dumps(self.body, ensure_ascii=False).encode(errors="replace")


def checked_id(job_id: str | None) -> str:
    """``job_id``, or a new one for None. Raises ValueError where modelsplit would refuse it."""
    if job_id is None:
        return uuid4().hex
    if _JOB_ID.fullmatch(job_id) is None:
        raise ValueError(
            f"a job's id is 1 to 128 letters, digits, '.', '_', ':' or '-': {job_id!r}"
        )
    return job_id


def started(job_id: str) -> Report:
    return Report(f"/jobs/{job_id}/start", {})


def tool(job_id: str, name: str, seconds: float, *, ok: bool) -> Report:
    """``seconds``: how long the tool took."""
    body = {"name": name, "duration_ms": round(seconds * 1000, 3), "ok": ok}
    return Report(f"/jobs/{job_id}/tool", body)


def finished(job_id: str, why: str | None) -> Report:
    """``why``: why it failed; None: it did not."""
    body = {"ok": True} if why is None else {"ok": False, "why": why[:_WHY_MAX]}
    return Report(f"/jobs/{job_id}/finish", body)


def reason(error: BaseException) -> str:
    """Why a job failed, by the exception that ended it: its class, of a call also the code.

    Never its text, which may quote a prompt or an answer.
    """
    name = type(error).__name__
    if isinstance(error, CallError) and error.error_code:
        return f"{name}: {error.error_code} {error.reason or ''}".rstrip()
    return name


class Complaints:
    """What is to be said of reports that were not taken: each kind of trouble once."""

    def __init__(self, admin_url: str) -> None:
        self._admin_url = admin_url
        self._told: set[int] = set()

    def unreached(self, error: Exception) -> str | None:
        """Of a report that nobody took. None: it has been said."""
        why = str(error) or type(error).__name__
        return self._once(
            0,
            f"job reports do not reach {self._admin_url} ({why}); calls go on, and their jobs have"
            " neither start, tools nor end. Where modelsplit's admin port is elsewhere, say it with"
            " admin_url=",
        )

    def refused(self, status: int, body: bytes) -> str | None:
        """Of a report that was answered with no success. None: it has been said."""
        why = of_response(status, {}, body)
        return self._once(status, f"{self._admin_url} refused a job report ({status}): {why}")

    def _once(self, kind: int, sentence: str) -> str | None:
        if kind in self._told:
            return None
        self._told.add(kind)
        return sentence
