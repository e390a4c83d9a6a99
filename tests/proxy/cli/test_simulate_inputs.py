"""Where the inputs of a simulation come from: files, the state file, names that are shipped."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import pytest

from modelsplit_proxy.cli.output import CommandError
from modelsplit_proxy.cli.simulate_inputs import recorded, task_of
from modelsplit_proxy.records.recorder import Recorder
from modelsplit_sim.replay.recorded import TraceError
from support.records import fallen_back
from support.stores import opened

if TYPE_CHECKING:
    from pathlib import Path


def arguments(**said: Any) -> argparse.Namespace:
    usual: dict[str, Any] = dict.fromkeys(
        (
            "policy",
            "against",
            "trace",
            "last",
            "workload",
            "host_model",
            "retries",
            "state",
            "admin",
            "hosts",
        )
    )
    usual |= {"seeds": 3, "load": 1.0, "closed_loop": "jobs", "azure": None, "thin": 1}
    return argparse.Namespace(**usual | said)


def test_a_workload_brings_its_host_and_another_may_be_named() -> None:
    own = task_of(arguments(workload="swap"), {})
    assert (own.host.name, own.seeds, own.warnings) == ("gpu-12gb", 3, ())
    other = task_of(arguments(workload="swap", host_model="gpu-24gb"), {})
    assert other.host.vram_gb == 24


def test_what_is_compared_comes_first() -> None:
    task = task_of(arguments(workload="swap", against="direct"), {})
    assert [each.name for each in task.contenders] == ["direct, split", "shipped default"]
    assert [each.direct for each in task.contenders] == ["", None]


def test_two_files_of_one_name_keep_apart(tmp_path: Path) -> None:
    for folder in ("old", "new"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "policy.json").write_text('{"extends": "default"}')
    old, new = (tmp_path / folder / "policy.json" for folder in ("old", "new"))
    task = task_of(arguments(workload="swap", policy=new, against=str(old)), {})
    assert [each.name for each in task.contenders] == ["policy.json (against)", "policy.json"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "is no JSON object"),
        ("{", "is not JSON"),
        ('{"name": "x", "speed": 1}', "speed is unknown"),
    ],
)
def test_a_host_file_that_is_none_is_named(text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "host.json"
    file.write_text(text)
    with pytest.raises(CommandError, match=says):
        task_of(arguments(workload="swap", host_model=str(file)), {})


def test_the_last_hours_are_asked_of_the_running_proxy() -> None:
    with pytest.raises(CommandError, match=r"nobody listens at http://127\.0\.0\.1:1"):
        task_of(arguments(last="24h", admin="127.0.0.1:1"), {})


def test_without_a_running_proxy_its_state_file_is_read(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        recorder = Recorder(store)
        for number in range(3):
            recorder.call_ended(fallen_back(request_id=f"call-{number}", job_id="job-1"))
    calls = recorded(arguments(last="2026-01-01T00:00:00Z", state=tmp_path), {})
    assert [(call.role, call.requested_model, call.job) for call in calls] == [
        ("PLANNER", "planner", "job-1")
    ] * 3
    assert {call.route_reason for call in calls} == {"alias"}
    assert [attempt.model for attempt in calls[0].attempts] == ["qwen3:4b", "qwen3:8b"]


def test_the_azure_format_needs_a_name_for_its_calls_and_a_host(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        + "".join(f"2023-11-16 18:15:{n:02}.0,100,{10 * n}\n" for n in range(60))
    )
    said = {"azure": [f"{file}=planner,executor>300"], "thin": 2, "host_model": "gpu-12gb"}
    task = task_of(arguments(**said), {})
    traffic, coverage = task.source.drawn(1)
    assert coverage.calls == 30
    assert {demand.model for demand in traffic.demands} == {"planner", "executor"}
    for text, says in (("a.csv", "is not FILE=NAME"), (f"{file}=a,b", "is not NAME or NAME,NAME")):
        with pytest.raises(CommandError, match=says):
            task_of(arguments(azure=[text], host_model="gpu-12gb"), {})
    file.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\nsoon,1,2\n")
    with pytest.raises(TraceError, match=r"a\.csv: line 2: TIMESTAMP .soon. is no time"):
        task_of(arguments(azure=[f"{file}=planner"], host_model="gpu-12gb"), {})
