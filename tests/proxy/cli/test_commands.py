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


def test_an_unknown_command_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(["server"], {})
    assert ended.value.code == 2
    assert "'serve'" in capsys.readouterr().err
