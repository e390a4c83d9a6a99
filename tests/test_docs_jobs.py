"""docs/jobs.md is complete: every report, every field, every limit."""

from __future__ import annotations

import re
from pathlib import Path

from modelsplit_policy.job_time import Part
from modelsplit_policy.jobs import MOST_OPEN, TOOL_MS_MAX, WHY_MAX, begun
from modelsplit_policy.vocabulary import JobState
from modelsplit_proxy.http.write_guard import BODY_MAX
from modelsplit_proxy.records import job_reader
from modelsplit_proxy.records.job_reader import MOST, KeptJob
from modelsplit_proxy.records.job_story import story
from support.harness import running

PAGE = (Path(__file__).parents[1] / "docs" / "jobs.md").read_text(encoding="utf-8")


def table(head: str) -> list[str]:
    """The words in the first column of the table whose first column is called ``head``."""
    body = PAGE.partition(f"\n| {head} |")[2].partition("\n\n")[0]
    lines = body.splitlines()[2:]
    return [word for line in lines for word in re.findall(r"`([^`]+)`", line.split("|")[1])]


def test_every_field_of_a_job_is_described_those_of_a_list_first() -> None:
    kept = KeptJob("j", begun(0), job_reader.nothing_yet())
    listed, told = list(job_reader.fields(kept)), list(story(kept, [], [], 0))
    said = table("field")
    assert sorted(said) == sorted(told)
    assert set(said[: len(listed)]) == set(listed)
    assert said[len(listed) - 1] == "cost_unknown"


def test_every_part_of_its_time_is_described_in_the_order_in_which_they_count() -> None:
    assert table("part") == [f"{part}_ms" for part in Part]


async def test_every_report_is_described() -> None:
    async with running() as up:
        writes = [path for path in up.app._admin_handler.writes if path.startswith("/jobs")]
        assert sorted(table("route")) == sorted(writes)


def test_the_states_and_limits_are_the_codes() -> None:
    assert f"state: {', '.join(list(JobState)[:-1])} or {JobState.EXPIRED}" in PAGE
    assert (BODY_MAX, WHY_MAX, TOOL_MS_MAX) == (4096, 200, 24 * 3600 * 1000)
    assert "at most 4 KiB" in PAGE
    assert f"at most {WHY_MAX} characters" in PAGE
    assert "0 to less than 24 h" in PAGE
    assert f"{MOST_OPEN:,} jobs are open".replace(",", " ") in PAGE
    assert f"the first {MOST} of each" in PAGE
