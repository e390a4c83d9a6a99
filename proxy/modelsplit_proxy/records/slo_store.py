"""What is written for objectives: heartbeats, reviews, baselines. Jobs of the store."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import orjson

if TYPE_CHECKING:
    import sqlite3

    from modelsplit_policy.slo.heartbeat import Heartbeat
    from modelsplit_policy.slo.samples import Baseline, Review

_MINUTE_US: Final = 60_000_000
# Of two in one minute the later counts: a process that is back has not drained.
_BEAT: Final = """
INSERT OR REPLACE INTO heartbeats (
    minute, at_us, run, drained, rss_bytes, descriptors, tasks, state_bytes, state_limit_bytes,
    lag_p99_us
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_REVIEW: Final = "INSERT OR REPLACE INTO reviews VALUES (?, ?, ?, ?, ?)"


def keep_heartbeat(db: sqlite3.Connection, beat: Heartbeat) -> None:
    values = (
        *(beat.at_us // _MINUTE_US, beat.at_us, beat.run, int(beat.drained)),
        *(beat.rss_bytes, beat.descriptors, beat.tasks),
        *(beat.state_bytes, beat.state_limit_bytes, beat.lag_p99_us),
    )
    db.execute(_BEAT, values)


def keep_review(db: sqlite3.Connection, review: Review, at_us: int, purpose: str | None) -> None:
    """A second verdict on a call takes the place of the first."""
    opinion = str(review.opinion)
    db.execute(_REVIEW, (review.request_id, review.called_us, at_us, opinion, purpose))


def keep_baseline(db: sqlite3.Connection, baseline: Baseline, at_us: int) -> None:
    """It counts from now on; those before it stay in the file."""
    value = orjson.dumps(asdict(baseline)).decode()
    db.execute("INSERT INTO baselines (at_us, value) VALUES (?, ?)", (at_us, value))
