"""The files that are made from the command line: completions and the manual page.

``.venv/bin/python tests/support/command_files.py`` writes them anew.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import shtab

from modelsplit_proxy.cli import man_page
from modelsplit_proxy.cli.commands import COMMANDS
from modelsplit_proxy.cli.main import build_parser

ROOT = Path(__file__).parents[2]
COMPLETIONS = {"bash": "modelsplit.bash", "zsh": "_modelsplit", "fish": "modelsplit.fish"}
PATHS = frozenset({"policy", "keys", "state"})


def made() -> dict[Path, str]:
    """Each file, and what it has to be."""
    completions = {
        ROOT / "contrib" / "completions" / name: completion(shell)
        for shell, name in COMPLETIONS.items()
    }
    return completions | {ROOT / "docs" / "man" / "modelsplit.1": man_page.page(COMMANDS)}


def completion(shell: str) -> str:
    """The script of one shell, without blanks at the ends of lines."""
    parser = build_parser(COMMANDS)
    complete_paths(parser)
    text: str = shtab.complete(parser, shell=shell)
    return re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE).rstrip("\n") + "\n"


def complete_paths(parser: argparse.ArgumentParser) -> None:
    """Mark the arguments that are paths."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                complete_paths(below)
        elif action.type is Path or (action.option_strings and action.dest in PATHS):
            action.complete = shtab.FILE  # type: ignore[attr-defined]


if __name__ == "__main__":
    for path, text in made().items():
        path.write_text(text, encoding="utf-8")
