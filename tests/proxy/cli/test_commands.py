"""The table of commands: what help lists is what there is."""

from __future__ import annotations

import pytest

from modelsplit_proxy.cli.commands import COMMANDS
from modelsplit_proxy.cli.main import run


def test_help_lists_every_command_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(["--help"], {})
    lines = capsys.readouterr().out.splitlines()
    listed = [line.split()[0] for line in lines if line.startswith("    ") and line[4] != " "]
    assert listed == [command.name for command in COMMANDS]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_has_help_of_its_own(
    command: object, capsys: pytest.CaptureFixture[str]
) -> None:
    name = getattr(command, "name", "")
    with pytest.raises(SystemExit) as ended:
        run([name, "--help"], {})
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: modelsplit {name} ")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("statsu", "argument COMMAND: there is no 'statsu'; did you mean 'status'?"),
        ("budget aprove", "argument VERB: there is no 'aprove'; did you mean 'approve'?"),
        ("xyzzy", "invalid choice: 'xyzzy' (choose from 'serve', "),
        ("status --jsn", "unrecognized arguments: --jsn; did you mean --json?"),
    ],
)
def test_an_unknown_word_is_wrong_usage_and_what_may_have_been_meant_is_told(
    words: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(words.split(), {})
    assert ended.value.code == 2
    assert told in capsys.readouterr().err
