"""A command is a value: its parser is made from it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

import pytest

from modelsplit_proxy.cli.command import JSON, Argument, Command, add, settings_of
from modelsplit_proxy.config.settings import SettingError


def nothing(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    del args, environ
    return 0


def other(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    del args, environ
    return 0


def parsed(command: Command, *arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add(parser.add_subparsers(), command)
    return parser.parse_args([command.name, *arguments])


def test_a_command_takes_its_arguments_and_its_settings() -> None:
    command = Command("ask", "h", "d", nothing, (Argument("name"), JSON), settings=("admin",))
    args = parsed(command, "x", "--json", "--admin", "127.0.0.1:1")
    assert (args.name, args.json, args.run) == ("x", True, nothing)
    assert str(settings_of(args, {}).admin) == "127.0.0.1:1"


def test_a_verb_has_arguments_of_its_own() -> None:
    verb = Command("new", "h", "d", nothing, (Argument("--name", required=True),))
    args = parsed(Command("keys", "h", "d", verbs=(verb,)), "new", "--name", "x")
    assert (args.verb, args.name, args.run) == ("new", "x", nothing)


def test_a_command_that_does_something_itself_may_have_a_verb_as_well(
    capsys: pytest.CaptureFixture[str],
) -> None:
    verb = Command("new", "h", "d", other)
    both = Command("keys", "h", "d", nothing, verbs=(verb,))
    assert parsed(both).run is nothing
    assert parsed(both, "new").run is other
    with pytest.raises(SystemExit):
        parsed(both, "--help")
    assert "[VERB] ..." in capsys.readouterr().out


def test_a_command_with_verbs_wants_one_and_names_them(capsys: pytest.CaptureFixture[str]) -> None:
    verbs = tuple(Command(name, "h", "d", nothing) for name in ("new", "old"))
    args = parsed(Command("keys", "h", "d", verbs=verbs))
    with pytest.raises(SystemExit) as ended:
        args.run(args, {})
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith("keys: error: which one? new, old\n")


def test_settings_come_from_flags_then_from_the_environment() -> None:
    command = Command("ask", "h", "d", nothing, settings=("admin",))
    environ = {"MODELSPLIT_ADMIN": "127.0.0.1:2"}
    assert settings_of(parsed(command), environ).admin.port == 2
    assert settings_of(parsed(command, "--admin", "127.0.0.1:3"), environ).admin.port == 3
    with pytest.raises(SettingError):
        settings_of(parsed(command, "--admin", "nowhere"), environ)


def test_examples_on_lines_of_their_own_stay_there(capsys: pytest.CaptureFixture[str]) -> None:
    command = Command("ask", "h", "d", nothing, example="examples:\n  ask a\n  ask b\n")
    with pytest.raises(SystemExit):
        parsed(command, "--help")
    assert "examples:\n  ask a\n  ask b\n" in capsys.readouterr().out
