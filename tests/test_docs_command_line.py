"""What is made from the command line is what the command line is now; its help fits and shows."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import pytest

from modelsplit_proxy.cli.commands import COMMANDS
from modelsplit_proxy.cli.main import build_parser
from support.command_files import COMPLETIONS, ROOT, made


def test_a_file_made_from_the_command_line_is_up_to_date() -> None:
    stale = [path.name for path, text in made().items() if path.read_text() != text]
    assert not stale, "write them anew: .venv/bin/python tests/support/command_files.py"


def test_every_shell_has_its_completion() -> None:
    folder = ROOT / "contrib" / "completions"
    assert {path.name for path in folder.iterdir()} == {*COMPLETIONS.values()}


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parser of every command and of every verb, with its own first."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from parsers(below)


EVERY = [*parsers(build_parser(COMMANDS))]


@pytest.mark.parametrize("parser", EVERY, ids=lambda parser: parser.prog)
def test_help_fits_in_eighty_columns_and_has_an_example(
    parser: argparse.ArgumentParser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    help_ = parser.format_help()
    assert [line for line in help_.splitlines() if len(line) > 80] == []
    assert parser.epilog
    assert "modelsplit" in parser.epilog
