"""Reports about a job, and what is said where they are not taken."""

from __future__ import annotations

import pytest

from modelsplit_client import OverloadThrottledError
from modelsplit_client.errors import Told
from modelsplit_client.jobs import Complaints, Report, checked_id, finished, reason, started, tool


def test_a_job_without_an_id_gets_a_new_one() -> None:
    assert checked_id("build-17") == "build-17"
    assert checked_id(None) != checked_id(None)
    assert checked_id(checked_id(None))


def test_the_reports() -> None:
    assert started("j") == Report("/jobs/j/start", {})
    assert tool("j", "grep", 0.0123456, ok=False) == Report(
        "/jobs/j/tool", {"name": "grep", "duration_ms": 12.346, "ok": False}
    )
    assert finished("j", None) == Report("/jobs/j/finish", {"ok": True})
    assert finished("j", "no plan") == Report("/jobs/j/finish", {"ok": False, "why": "no plan"})


def test_whatever_is_in_a_report_can_be_sent() -> None:
    assert b'"why": "half a character: ?"' in finished("j", "half a character: \ud83d").content


def test_why_is_short() -> None:
    assert finished("j", "x" * 1000).body["why"] == "x" * 200


def test_an_exception_is_told_by_its_class_and_never_by_its_words() -> None:
    assert reason(ValueError("the prompt was: secret")) == "ValueError"
    assert reason(KeyboardInterrupt()) == "KeyboardInterrupt"
    busy = OverloadThrottledError(
        "role PLANNER is overloaded",
        Told(error_code="E_OVERLOAD_THROTTLED", reason="queue_full"),
    )
    assert reason(busy) == "OverloadThrottledError: E_OVERLOAD_THROTTLED queue_full"
    assert reason(OverloadThrottledError("busy", Told())) == "OverloadThrottledError"


def test_each_trouble_is_said_once() -> None:
    complaints = Complaints("http://127.0.0.1:11436")
    said = complaints.unreached(OSError("refused"))
    assert said is not None
    assert said.startswith("job reports do not reach http://127.0.0.1:11436 (refused); calls go on")
    assert complaints.unreached(OSError()) is None
    assert complaints.refused(403, b'{"error": "no key"}') == (
        "http://127.0.0.1:11436 refused a job report (403): no key"
    )
    assert complaints.refused(403, b"no key") is None
    assert complaints.refused(400, b"bad name") is not None


@pytest.mark.parametrize("job_id", ["", "a b", "a/b", "a?b", "../x", "x" * 129, "ü", "a\n"])
def test_an_id_that_modelsplit_refuses_is_refused_here(job_id: str) -> None:
    with pytest.raises(ValueError, match="a job's id is 1 to 128 letters"):
        checked_id(job_id)
