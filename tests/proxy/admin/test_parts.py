"""What the subjects of the admin port look at is one process's."""

from __future__ import annotations

from support.harness import running


async def test_every_subject_is_given_parts_of_the_same_process() -> None:
    async with running() as up:
        parts = up.app._admin_parts()
    assert parts.stats.recorder is parts.requests.recorder is parts.jobs.recorder
    assert parts.stats.service is parts.health.service
    assert parts.dashboard.stats.clock is parts.slo.clock
    assert parts.dashboard.listen == up.app.address
