"""A good answer is remembered, and not for ever."""

from __future__ import annotations

from modelsplit_proxy.passthrough.last_good import LastGood, Whole


def test_an_answer_is_recalled_until_it_is_too_old() -> None:
    kept = LastGood(max_age_s=10)
    assert kept.recall("/api/tags", 0.0) is None
    first, second = Whole((), b"1", at=5.0), Whole((), b"2", at=6.0)
    kept.note("/api/tags", first)
    kept.note("/v1/models", second)
    assert kept.recall("/api/tags", 15.0) is first
    assert kept.recall("/api/tags", 15.1) is None
    kept.note("/api/tags", second)
    assert kept.recall("/api/tags", 15.1) is second
    kept.forget()
    assert kept.recall("/api/tags", 15.1) is None
