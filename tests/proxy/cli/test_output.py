"""What a command prints: data to stdout, talk to stderr."""

from __future__ import annotations

import pytest

from modelsplit_proxy.cli.output import CommandError, ExitCode, show, talk


def test_data_and_talk_go_separate_ways(capsys: pytest.CaptureFixture[str]) -> None:
    show({"a": 1}, ["a is 1", "that is all"], as_json=False)
    talk("by the way")
    assert capsys.readouterr() == ("a is 1\nthat is all\n", "modelsplit: by the way\n")


def test_the_same_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    show({"a": [1]}, ["not this"], as_json=True)
    assert capsys.readouterr().out == '{\n  "a": [\n    1\n  ]\n}\n'


def test_an_error_carries_its_exit_code() -> None:
    assert CommandError("no", ExitCode.NOT_RUNNING).code == 3
