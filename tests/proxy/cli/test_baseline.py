"""``modelsplit baseline``: recorded, typed in, read from a file, shown."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from modelsplit_proxy.cli.main import run
from support.slo_history import EMPTY, MINUTE_US, breaching, write
from support.stores import execute

Outcome = tuple[int, str, str]
Baseline = Callable[..., Outcome]


@pytest.fixture
def baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Baseline:
    def command(*arguments: str) -> Outcome:
        try:
            code = run(["baseline", *arguments, "--state", str(tmp_path)], {})
        except SystemExit as ended:
            code = int(ended.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


DOCUMENTS = """\
baseline      the shipped figures
timeouts      26 planner calls in 5 h
planner P95   10 s
jobs          none to compare with
reviews       none to compare with
"""


def test_without_one_it_is_the_documents(baseline: Baseline, tmp_path: Path) -> None:
    write(tmp_path, EMPTY, None)
    assert baseline("show") == (0, DOCUMENTS, "")


def test_recorded_from_a_week(baseline: Baseline, tmp_path: Path) -> None:
    now_us = int(time.time() * 1e6) // MINUTE_US * MINUTE_US
    write(tmp_path, breaching(now_us), None)
    code, out, _ = baseline("record", "--since", "7d", "--json")
    made = json.loads(out)
    assert code == 0
    assert made["source"].startswith("records of 20")
    assert (made["timeouts"], made["planner_p95_ms"]) == (pytest.approx(0.45, abs=0.01), 2000)
    assert made["reviews"] == 40
    assert json.loads(baseline("show", "--json")[1]) == made


def test_too_little_is_not_recorded(baseline: Baseline, tmp_path: Path) -> None:
    write(tmp_path, EMPTY, None)
    code, out, talk = baseline("record")
    assert (code, out) == (3, "")
    assert "not enough data: 0 answered planner calls" in talk
    assert execute(tmp_path, "SELECT count(*) FROM baselines") == [(0,)]


def test_typed_in(baseline: Baseline, tmp_path: Path) -> None:
    write(tmp_path, EMPTY, None)
    numbers = ("--timeouts", "40", "--jobs", "200", "--jobs-ok", "180")
    code, out, _ = baseline("import", *numbers, "--source", "before the proxy")
    assert code == 0
    assert out.startswith("baseline      before the proxy\ntimeouts      40 planner calls in 5 h\n")
    assert "jobs          180 of 200 ended well\n" in out
    assert "planner P95   10 s\n" in out


def test_from_a_file_that_show_wrote(baseline: Baseline, tmp_path: Path) -> None:
    write(tmp_path, EMPTY, None)
    baseline("import", "--timeouts", "7", "--source", "here")
    file = tmp_path / "before.json"
    file.write_text(baseline("show", "--json")[1])
    baseline("import", "--timeouts", "9")
    assert "timeouts      9" in baseline("show")[1]
    assert baseline("import", str(file))[0] == 0
    assert baseline("show")[1].startswith("baseline      here\ntimeouts      7 ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "is no JSON object"),
        ("{", "is not JSON"),
        ('{"timeout": 3}', '"timeout" is unknown here'),
        ('{"timeouts": "3"}', "timeouts cannot be '3'; give a number from 0 to 1000000000"),
        ('{"timeouts": -1}', "timeouts cannot be '-1'; give a number from 0 to 1000000000"),
        ('{"jobs": 1.5}', "jobs cannot be '1.5'; give a whole number from 0 to 1000000000"),
        ('{"jobs": true}', "jobs cannot be"),
        ('{"jobs": 1, "jobs_ok": 2}', "jobs_ok 2 is more than jobs, which is 1"),
        ('{"timeouts_window_s": 0}', "give a whole number from 1 to 1000000000"),
        ('{"source": ""}', "source cannot be ''; give 1 to 100 characters in one line"),
        ('{"planner_p95_ms": 0}', "planner_p95_ms cannot be '0'; give a number from 1 to"),
        ("{}", "has no number of a baseline in it"),
        ('{"source": "before"}', "has no number of a baseline in it"),
    ],
)
def test_a_file_that_says_something_else_is_refused(
    baseline: Baseline, tmp_path: Path, text: str, words: str
) -> None:
    write(tmp_path, EMPTY, None)
    file = tmp_path / "before.json"
    file.write_text(text)
    code, out, talk = baseline("import", str(file))
    assert (code, out) == (2, "")
    assert words in talk


def test_either_a_file_or_numbers(baseline: Baseline, tmp_path: Path) -> None:
    write(tmp_path, EMPTY, None)
    assert baseline("import")[0] == 2
    assert baseline("import", "x.json", "--timeouts", "3")[0] == 2
    assert "cannot be read: No such file" in baseline("import", str(tmp_path / "x.json"))[2]


def test_numbers_that_are_none(baseline: Baseline, tmp_path: Path) -> None:
    write(tmp_path, EMPTY, None)
    assert baseline("import", "--timeouts", "nan")[0] == 2
    assert baseline("import", "--timeouts", "many")[0] == 2


def test_a_verb_is_needed(baseline: Baseline) -> None:
    assert baseline()[0] == 2
