"""``modelsplit slo review``: which calls are shown, and what becomes of a verdict."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from modelsplit_proxy.cli.main import run
from support.slo_history import MINUTE_US, History, executor, planner, write
from support.stores import execute

Outcome = tuple[int, str, str]
Review = Callable[..., Outcome]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def state(tmp_path: Path) -> Path:
    now_us = int(time.time() * 1e6)
    calls = [executor(f"exec-{i}", now_us - (9 - i) * MINUTE_US) for i in range(6)]
    failed = executor("failed", now_us - 2 * MINUTE_US)._replace(outcome="E_INTERNAL")
    old = executor("old", now_us - 30 * 24 * 60 * MINUTE_US)
    plan = planner("plan", now_us - MINUTE_US)
    write(tmp_path, History((old, *calls, failed, plan)))
    execute(
        tmp_path,
        "UPDATE calls SET purpose = 'failure_analysis', job_id = 'job-7' "
        "WHERE request_id IN ('exec-0', 'exec-1')",
    )
    return tmp_path


@pytest.fixture
def review(state: Path, capsys: pytest.CaptureFixture[str]) -> Review:
    def command(*arguments: str) -> Outcome:
        code = run(["slo", "review", *arguments, "--state", str(state)], {})
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


def kept(state: Path) -> dict[str, str]:
    rows = execute(state, "SELECT request_id, opinion FROM reviews ORDER BY request_id")
    return {str(name): str(opinion) for name, opinion in rows}


def test_answered_calls_of_the_executor_are_shown_with_request_and_job(review: Review) -> None:
    code, out, _ = review()
    assert code == 0
    shown = {line.split()[1]: line for line in out.splitlines()}
    assert set(shown) == {f"exec-{i}" for i in range(6)}
    assert "job job-7  failure_analysis  qwen3:8b" in shown["exec-0"]
    assert "no job     no purpose" in shown["exec-5"]


def test_as_json_of_one_purpose_and_so_many(review: Review) -> None:
    told = json.loads(review("--json", "--purpose", "failure_analysis")[1])
    assert {entry["request_id"] for entry in told} == {"exec-0", "exec-1"}
    assert told[0]["job_id"] == "job-7"
    mixed = json.loads(review("--json", "--count", "2")[1])
    assert {entry["purpose"] for entry in mixed} == {"failure_analysis", None}


def test_a_verdict_is_kept_and_its_call_shown_no_more(review: Review, state: Path) -> None:
    code, out, _ = review("--verdict", "exec-0=good", "--verdict", "exec-1=hallucinated")
    assert (code, out) == (0, "exec-0  good\nexec-1  hallucinated\n")
    assert kept(state) == {"exec-0": "good", "exec-1": "hallucinated"}
    assert execute(state, "SELECT DISTINCT purpose FROM reviews") == [("failure_analysis",)]
    assert "exec-0" not in review()[1]
    review("--verdict", "exec-0=bad")
    assert kept(state)["exec-0"] == "bad"


def test_the_first_letters_of_an_id_will_do(review: Review, state: Path) -> None:
    assert review("--verdict", "exec-3=bad")[0] == 0
    assert kept(state) == {"exec-3": "bad"}


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("exec-0=fine", "the verdicts are good, bad, hallucinated"),
        ("exec-0", "is not ID=VERDICT"),
        ("nobody=good", 'no call has the request id "nobody"'),
        ("exec-=good", "several calls begin with"),
        ("plan=good", "plan is no call of the context EXECUTOR"),
    ],
)
def test_one_wrong_verdict_keeps_none(review: Review, state: Path, word: str, words: str) -> None:
    code, out, talk = review("--verdict", "exec-5=good", "--verdict", word)
    assert (code, out) == (2, "")
    assert words in talk
    assert kept(state) == {}


def test_at_a_terminal_each_is_asked_for_and_kept_at_once(
    review: Review, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal("g\nwhat\nhallucinated\ns\nq\n"))
    code, out, talk = review()
    assert code == 0
    assert out.startswith("6 calls; find each answer in the caller's own logs by its id\n\n1. 20")
    assert sorted(kept(state).values()) == ["good", "hallucinated"]
    # What is no verdict is asked again.
    assert talk.count("good, bad or hallucinated?") == 5


def test_who_leaves_at_the_terminal_leaves(
    review: Review, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(""))
    assert review()[0] == 0
    assert kept(state) == {}


def test_nothing_to_review_is_said(review: Review) -> None:
    code, out, talk = review("--purpose", "complex_output")
    assert (code, out) == (0, "")
    assert "no answered call of the context EXECUTOR waits for a review" in talk


def test_a_count_is_within_bounds(review: Review) -> None:
    assert review("--count", "0")[0] == 2
