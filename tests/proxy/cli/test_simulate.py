"""``modelsplit simulate`` from its input to its report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from modelsplit_proxy.cli.main import run

if TYPE_CHECKING:
    from collections.abc import Iterable

HOST = {"name": "plain", "ms_per_token": 10, "prompt_ms": 0, "contention": 0, "spread": 0}


def line(number: int, **more: Any) -> dict[str, Any]:
    """A planner's call of a second, one every three."""
    fields = {
        "trace": 2,
        "arrived": 1000.0 + 3 * number,
        "route": "/api/chat",
        "llm_role": "PLANNER",
        "requested_model": "planner",
        "llm_model": "qwen3:4b",
        "outcome": "ok",
        "prompt_tokens": 10,
        "output_tokens": 100,
        "call_e2e_latency_ms": 1000.0,
        "attempts": [],
    }
    return fields | more


def written(path: Path, lines: Iterable[dict[str, Any] | str]) -> Path:
    texts = [each if isinstance(each, str) else json.dumps(each) for each in lines]
    path.write_text("".join(f"{text}\n" for text in texts))
    return path


@pytest.fixture
def host(tmp_path: Path) -> Path:
    return written(tmp_path / "host.json", [HOST])


def simulated(*flags: object) -> int:
    return run(["simulate", *map(str, flags)], {})


def test_a_trace_against_a_policy(
    tmp_path: Path, host: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = written(tmp_path / "trace.jsonl", [line(number) for number in range(20)])
    assert simulated("--trace", trace, "--host-model", host, "--seeds", 2) == 0
    out, err = capsys.readouterr()
    assert err == "", "no progress where nobody looks"
    first, second, *_ = out.splitlines()
    assert first == (
        "warning: little was replayed (20 calls, fewer than 200; 1 minutes, less than an hour): "
        "read the figures as a hint"
    )
    assert second == "planner P95 1.0 s, 0.0 % failed"
    assert "replayed: 20 calls of 0.02 h" in out
    assert "  length of the answer: 100 % recorded" in out


def test_calls_that_nobody_answered_are_left_out_with_a_warning(
    tmp_path: Path, host: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud = line(3) | {"llm_role": "CLOUD", "requested_model": "cloud", "llm_model": None}
    cloud |= {"outcome": "E_MODEL_NOT_FOUND", "output_tokens": None}
    trace = written(tmp_path / "trace.jsonl", [line(1), line(2), cloud])
    assert simulated("--trace", trace, "--host-model", host, "--seeds", 1, "--json") == 0
    report = orjson.loads(capsys.readouterr().out)
    assert report["coverage"]["unanswered"] == {"CLOUD": 1}
    assert report["warnings"][1] == (
        "1 calls of CLOUD are left out, and so is what they would have cost: none was answered, "
        "so nobody knows how long its answers are"
    )


def test_an_older_trace_is_read_as_well(
    tmp_path: Path, host: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = line(0, trace=1)
    old["job_e2e_latency_ms"] = old.pop("call_e2e_latency_ms")
    trace = written(tmp_path / "trace.jsonl", [old])
    assert simulated("--trace", trace, "--host-model", host, "--seeds", 1, "--json") == 0
    report = orjson.loads(capsys.readouterr().out)
    assert report["coverage"]["calls"] == 1
    assert report["policies"][0]["roles"]["PLANNER"]["calls"] == 1


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ("{", "the line is no JSON: unexpected end of data (column 2)"),
        ('{"trace": 9}', "the line is of trace version 9; known are 1 and 2"),
        ("{}", "the line is no call of a trace: it has no number of a version in `trace`"),
        (json.dumps(line(0, output_tokens="x")), "output_tokens is of the wrong kind: x"),
    ],
)
def test_a_broken_line_is_named_by_its_number(
    broken: str, says: str, tmp_path: Path, host: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = written(tmp_path / "trace.jsonl", [line(0), "", broken])
    assert simulated("--trace", trace, "--host-model", host) == 2
    assert capsys.readouterr().err == f"modelsplit: {trace}: line 3: {says}\n"


def test_no_call_is_an_error_too(
    tmp_path: Path, host: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = written(tmp_path / "trace.jsonl", [])
    assert simulated("--trace", trace, "--host-model", host) == 2
    assert capsys.readouterr().err == f"modelsplit: {trace}: there is no call in it\n"


def test_a_model_without_figures_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = {"qwen3:4b": {"ms_per_token": 10, "load_ms": 1000}}
    host = written(tmp_path / "host.json", [HOST | {"models": models}])
    trace = written(tmp_path / "trace.jsonl", [line(0)])
    assert simulated("--trace", trace, "--host-model", host) == 2
    told = capsys.readouterr().err
    assert "may ask for qwen3:8b, of which the host model has no figures; add --host-model" in told
    # What it says works.
    assert "--host-model gpu-12gb, which is shipped" in told
    assert simulated("--trace", trace, "--host-model", "gpu-12gb") == 0


def test_two_policies_side_by_side(
    tmp_path: Path, host: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [line(number, arrived=1000.0 + 9 * (number // 4)) for number in range(300)]
    trace = written(tmp_path / "trace.jsonl", lines)
    seat = {"roles": {"PLANNER": {"max_queue": 1}}}
    narrow = written(tmp_path / "narrow.json", [{"extends": "default", **seat}])
    flags = ("--host-model", host, "--seeds", 3, "--policy", narrow, "--against", "shipped")
    assert simulated("--trace", trace, *flags) == 0
    out = capsys.readouterr().out
    assert "shipped" in out
    assert "narrow.json" in out
    assert "with the 95 % interval" in out


def test_a_workload_against_no_proxy_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--seeds", 2, "--load", 0.3, "--json", "--against", "direct:qwen3:4b")
    assert simulated("--workload", "burst", *flags) == 0
    report = orjson.loads(capsys.readouterr().out)
    assert [policy["name"] for policy in report["policies"]] == [
        "direct, qwen3:4b",
        "shipped default",
    ]
    assert report["seeds"] == 2
    assert report["summary"]
    assert {gap["role"] for gap in report["differences"]} >= {"PLANNER", "EXECUTOR"}


def timed(number: int, **more: Any) -> dict[str, Any]:
    """The same with Ollama's durations: ten milliseconds a token."""
    attempt = {
        "model": "qwen3:4b",
        "outcome": "ok",
        "asked_ms": 0.1,
        "seated_ms": 0.2,
        "dispatched_ms": 0.3,
        "first_ms": 1040.0,
        "ended_ms": 1041.0,
        "load_ms": 1.0,
        "prompt_ms": 40.0,
        "eval_ms": 1000.0,
        "prompt_tokens": 10,
        "output_tokens": 100,
    }
    return line(number, attempts=[attempt | more])


def test_the_hosts_figures_are_printed_as_a_file_and_what_to_know_of_them_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = written(tmp_path / "trace.jsonl", [timed(number) for number in range(20)])
    assert simulated("--trace", trace, "--fit") == 0
    out, err = capsys.readouterr()
    host = orjson.loads(out)
    assert host["models"]["qwen3:4b"]["ms_per_token"] == 10.0
    assert host["models"]["qwen3:4b"]["prompt_ms"] == 40.0
    assert "warning: records do not say how much memory models take" in err
    assert "of 20 calls it misses the time of half by less than 0.0 %" in err
    (tmp_path / "host.json").write_text(out)
    host["models"]["qwen3:8b"] = host["models"]["qwen3:4b"]
    written(tmp_path / "host.json", [host])
    flags = ("--trace", trace, "--host-model", tmp_path / "host.json", "--seeds", 1)
    assert simulated(*flags) == 0, "what it printed can be given back"


def test_the_fit_as_json_has_intervals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = written(tmp_path / "trace.jsonl", [timed(number) for number in range(20)])
    assert simulated("--trace", trace, "--fit", "--json") == 0
    found = orjson.loads(capsys.readouterr().out)
    assert found["calls"] == 20
    names = [figure["name"] for figure in found["figures"]]
    assert names == ["qwen3:4b ms_per_token", "qwen3:4b prompt_ms", "qwen3:4b prompt_ms_per_token"]
    assert found["figures"][0]["low"] == found["figures"][0]["high"] == 10.0


def test_without_a_host_model_it_is_fitted_and_what_is_missing_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = written(tmp_path / "trace.jsonl", [timed(number) for number in range(20)])
    assert simulated("--trace", trace) == 2
    assert "may ask for qwen3:8b, of which the host model has no figures" in capsys.readouterr().err
    alone = {"roles": {"PLANNER": {"fallback": None, "fallback_timeout_ms": None}}}
    policy = written(tmp_path / "alone.json", [{"extends": "default", **alone}])
    assert simulated("--trace", trace, "--policy", policy, "--seeds", 1) == 0
    out = capsys.readouterr().out
    assert "warning: the host's figures: qwen3:4b was never loaded: 1700 ms are assumed" in out


def test_a_gate_that_breaks_is_told_by_the_exit_code(
    tmp_path: Path, host: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    crowd = [line(number, arrived=1000.0 + 9 * (number // 4)) for number in range(300)]
    trace = written(tmp_path / "trace.jsonl", crowd)
    seat = {"roles": {"PLANNER": {"max_queue": 1}}}
    narrow = written(tmp_path / "narrow.json", [{"extends": "default", **seat}])
    flags = ("--trace", trace, "--host-model", host, "--seeds", 1, "--policy", narrow)
    assert simulated(*flags) == 0
    assert simulated(*flags, "--check") == 1
    assert "gates of narrow.json: 1 breach, 2 breach" in capsys.readouterr().out
    calm = written(tmp_path / "calm.jsonl", [line(number) for number in range(300)])
    assert simulated("--trace", calm, "--host-model", host, "--seeds", 1, "--check") == 0


def test_what_a_second_host_brings(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--workload", "burst", "--seeds", 1, "--load", 0.2, "--hosts", 2)
    assert simulated(*flags) == 0
    told = capsys.readouterr().out
    assert "PLANNER   shipped default, 2 hosts " in told
    assert simulated(*flags, "--against", "direct") == 0
    assert "direct, split" in capsys.readouterr().out


def test_so_many_hosts_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulated("--workload", "burst", "--hosts", 0) == 2
    assert "--hosts is 1 to 16" in capsys.readouterr().err
