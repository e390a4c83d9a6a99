"""The words that others share with queries."""

from __future__ import annotations

from modelsplit_proxy.records.query import read_query
from modelsplit_proxy.records.query_error import RUNNING


def test_a_call_that_runs_has_not_failed() -> None:
    call = dict.fromkeys(("llm_role", "llm_model", "requested_model", "client", "job_id"))
    failed = read_query({"failed": "true", "since": "1d"}, 86_400.0)
    came = {"started_at": "1970-01-01T00:00:01.000Z"}
    assert not failed.fits({**call, **came, "outcome": RUNNING})
    assert failed.fits({**call, **came, "outcome": "E_TIMEOUT"})
