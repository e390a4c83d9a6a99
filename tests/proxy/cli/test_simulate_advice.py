"""``modelsplit simulate --capacity`` and ``--advise`` from their flags to what they print."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from modelsplit_proxy.cli.main import run
from modelsplit_proxy.config import policy_file

if TYPE_CHECKING:
    from pathlib import Path

# Two models that do not fit beside each other.
MODELS = {
    name: {"ms_per_token": 10, "load_ms": 4000, "gb": 5}
    for name in ("qwen3:4b", "qwen3:8b", "gemma3:12b")
}
HOST = {"name": "small", "vram_gb": 8, "contention": 0.5, "batching": 0.2, "models": MODELS}


def call(number: int) -> dict[str, Any]:
    """Planners every six seconds, an executor after every third."""
    executor = number % 4 == 3
    return {
        "trace": 2,
        "arrived": 1000.0 + 6 * number,
        "route": "/api/chat",
        "llm_role": "EXECUTOR" if executor else "PLANNER",
        "requested_model": "executor" if executor else "planner",
        "llm_model": "qwen3:8b" if executor else "qwen3:4b",
        "outcome": "ok",
        "prompt_tokens": 10,
        "output_tokens": 160 if executor else 60,
        "call_e2e_latency_ms": 1000.0,
        "attempts": [],
    }


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    host, trace = tmp_path / "host.json", tmp_path / "trace.jsonl"
    host.write_text(json.dumps(HOST))
    trace.write_text("".join(f"{json.dumps(call(number))}\n" for number in range(80)))
    return ["simulate", "--trace", str(trace), "--host-model", str(host), "--seeds", "1"]


def test_capacity_is_told_with_what_was_tried(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*flags, "--capacity", "--against", "direct:qwen3:4b", "--json"], {}) == 0
    found = orjson.loads(capsys.readouterr().out)
    assert found["goals"] == {
        "planner_p95_s": 5.0,
        "planner_lost": 0.01,
        "others_served": 0.95,
    }
    one, split = found["capacity"]["direct, qwen3:4b"], found["capacity"]["shipped default"]
    assert one > split, "two models that make room for each other carry less than one"
    assert {row["policy"] for row in found["tried"]} == set(found["capacity"])


def test_capacity_in_words(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*flags, "--capacity"], {}) == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("shipped default carries ")
    assert second == (
        "goals: planner P95 below 5 s, at most 1 % of planners not served, "
        "at least 95 % of every other role"
    )


def test_advice_is_a_change_of_the_policy_with_its_evidence(
    flags: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run([*flags, "--advise", "--json"], {}) == 0
    advice = orjson.loads(capsys.readouterr().out)
    assert advice["change"] is not None
    assert advice["advised"]["load"] > advice["today"]["load"]
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps({"extends": "default", **advice["change"]}))
    source = policy_file.load(changed).source
    assert source == str(changed), "it can be laid over the policy as it is printed"


def test_one_thing_at_a_time(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*flags, "--advise", "--capacity"], {}) == 2
    assert "one at a time" in capsys.readouterr().err
