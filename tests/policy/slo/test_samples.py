"""Samples are plain values that nobody changes."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from modelsplit_policy.slo.samples import DOCUMENT_BASELINE, CallSample, Samples


def test_a_call_can_be_made_of_what_is_known_at_least() -> None:
    call = CallSample("r", 1, 2, None, "E_BAD_REQUEST")
    assert (call.attempt_codes, call.sent, call.llm_latency_us) == ((), False, None)
    with pytest.raises(AttributeError):
        call.role = "PLANNER"  # type: ignore[misc]


def test_the_documents_baseline_is_what_samples_come_with() -> None:
    assert (DOCUMENT_BASELINE.timeouts, DOCUMENT_BASELINE.timeouts_window_s) == (26, 18_000)
    assert DOCUMENT_BASELINE.planner_p95_ms == 10_000
    assert Samples().baseline is DOCUMENT_BASELINE
    with pytest.raises(FrozenInstanceError):
        DOCUMENT_BASELINE.timeouts = 0  # type: ignore[misc]
