"""The command line: arguments in, an exit code out; data on stdout, talk on stderr."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING, cast

import pytest

from modelsplit_proxy.cli import main as cli
from modelsplit_proxy.config.settings import OPTIONS
from support.process import BARE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def bad_policy(tmp_path: Path) -> str:
    path = tmp_path / "bad.json"
    path.write_text('{"extends": "default", "version": 2}')
    return str(path)


@pytest.fixture
def own_logging() -> Iterator[None]:
    """Put back what ``serve`` sets up for its own process."""
    ours = logging.getLogger("modelsplit")
    before = (ours.handlers, ours.level, ours.propagate)
    yield
    ours.handlers, ours.level, ours.propagate = before


# No proxy that happens to run on this machine is asked.
NOBODY = {"MODELSPLIT_ADMIN": "127.0.0.1:1"}


def run(*arguments: str, **environ: str) -> int:
    """The exit code, argparse's own included."""
    try:
        return cli.run(list(arguments), NOBODY | environ)
    except SystemExit as left:
        return cast("int", left.code)


def process(
    *arguments: str, stdout: int = subprocess.PIPE, **environ: str
) -> subprocess.CompletedProcess[bytes]:
    """A real one, for what a process must not leave behind in this one."""
    return subprocess.run(
        [sys.executable, "-m", "modelsplit_proxy", *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=BARE | NOBODY | environ,
        check=False,
    )


# --- Help, version, usage -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["serve"],
        ["demo"],
        ["check-config"],
        ["route"],
        ["requests"],
        ["keys"],
        ["keys", "new"],
        ["budget"],
        ["budget", "approve"],
        ["keys", "check"],
        *(["budget", verb] for verb in ("show", "revoke", "reset")),
    ],
)
def test_help_is_data_and_0(command: list[str], capsys: Capture) -> None:
    assert run(*command, "--help") == 0
    out = capsys.readouterr()
    assert out.out.startswith(" ".join(["usage: modelsplit", *command]))
    assert len(command) < 2 or "Exit 0: " in " ".join(out.out.split())
    assert out.err == ""


def test_the_help_of_serve_names_every_setting_with_its_default(capsys: Capture) -> None:
    run("serve", "--help")
    words = " ".join(capsys.readouterr().out.split())
    for option in OPTIONS:
        assert option.flag in words
        assert f"{option.help} (default {option.default})" in words or not option.default


def test_the_version_is_the_distributions(capsys: Capture) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"modelsplit {version('modelsplit')}\n"


def test_no_command_is_wrong_usage_and_shows_the_help(capsys: Capture) -> None:
    assert run() == 2
    out = capsys.readouterr()
    assert out.out == ""
    assert out.err.startswith("usage: modelsplit")


@pytest.mark.parametrize(
    "arguments",
    [
        ["dance"],
        ["serve", "--lisen", "x"],
        ["serve", "extra"],
        ["route"],
        ["check-config", "a", "b"],
        ["serve", "--listen"],
        ["keys"],
        ["keys", "new"],
        ["budget"],
        ["budget", "approve", "--usd", "5", "--days", "7", "--by", "kim"],
        ["budget", "approve", "--usd", "much", "--days", "7", "--by", "k", "--reason", "r"],
    ],
)
def test_wrong_usage_is_2_and_said_on_stderr(arguments: list[str], capsys: Capture) -> None:
    assert run(*arguments) == 2
    out = capsys.readouterr()
    assert out.out == ""
    assert "error: " in out.err


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["requests"],
        ["route", "planner"],
        ["check-config"],
        ["config", "show"],
        ["budget", "show"],
        ["keys", "new", "--name", "kim"],
        ["print-unit"],
        ["completion", "bash"],
    ],
    ids=" ".join,
)
def test_every_command_tells_once_of_a_variable_that_is_no_setting(
    command: list[str], tmp_path: Path, capsys: Capture
) -> None:
    run(*command, MODELSPLIT_DRIAN="1s", MODELSPLIT_STATE=str(tmp_path))
    told = [line for line in capsys.readouterr().err.splitlines() if "DRIAN" in line]
    assert told == [
        "modelsplit: warning: MODELSPLIT_DRIAN is no setting of ours; is it MODELSPLIT_DRAIN?"
    ]


# --- Configuration that cannot be used ----------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "usage"),
    [
        (["status", "--foo"], "usage: modelsplit status "),
        (["status", "extra"], "usage: modelsplit status "),
        (["baseline", "show", "--foo"], "usage: modelsplit baseline show "),
        (["slo", "--foo"], "usage: modelsplit slo "),
        (["--foo"], "usage: modelsplit [-h]"),
    ],
)
def test_an_unknown_flag_shows_the_usage_of_its_command(
    arguments: list[str], usage: str, capsys: Capture
) -> None:
    assert run(*arguments) == 2
    told = capsys.readouterr().err
    assert told.startswith(usage)
    assert f"error: unrecognized arguments: {arguments[-1]}" in told


def test_a_state_that_is_not_there_is_wrong_usage(tmp_path: Path, capsys: Capture) -> None:
    for command in (["requests"], ["jobs"], ["budget", "show"]):
        assert run(*command, "--state", str(tmp_path / "no")) == 2
        assert f"no state file there: {tmp_path / 'no'}" in capsys.readouterr().err


def test_a_route_of_no_model_is_wrong_usage(capsys: Capture) -> None:
    assert run("route", "") == 2
    assert capsys.readouterr() == (
        "",
        "modelsplit: MODEL is empty; give the name that a client would send\n",
    )


def test_serve_with_a_bad_policy_is_78(bad_policy: str, capsys: Capture) -> None:
    assert run("serve", "--policy", bad_policy) == 78
    out = capsys.readouterr()
    assert out.out == ""
    assert out.err == f"modelsplit: {bad_policy}: $.version: must be 1, not 2\n"


def test_serve_with_a_bad_setting_is_78(capsys: Capture) -> None:
    assert run("serve", MODELSPLIT_DRAIN="soon") == 78
    assert capsys.readouterr().err.startswith('modelsplit: --drain "soon" is not a duration')


def test_serve_with_a_state_directory_that_is_a_file_is_78(
    bad_policy: str, capsys: Capture, own_logging: None
) -> None:
    del own_logging
    arguments = ("serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    assert run(*arguments, "--state", bad_policy) == 78
    assert "cannot be used" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["check-config"], ["route", "x", "--policy"]])
def test_the_other_commands_answer_a_bad_policy_with_1(
    arguments: list[str], bad_policy: str, capsys: Capture
) -> None:
    assert run(*arguments, bad_policy) == 1
    out = capsys.readouterr()
    assert out.out == ""
    assert "$.version: must be 1, not 2" in out.err


@pytest.mark.parametrize("command", [["check-config"], ["route", "x"]])
def test_a_policy_named_by_the_environment_has_to_exist(
    command: list[str], tmp_path: Path, capsys: Capture
) -> None:
    assert run(*command, MODELSPLIT_POLICY=str(tmp_path / "none.json")) == 1
    assert "$MODELSPLIT_POLICY names it" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--listen", "--admin"])
def test_a_busy_port_is_69(flag: str, tmp_path: Path) -> None:
    addresses = {"--listen": "127.0.0.1:0", "--admin": "127.0.0.1:0", "--state": str(tmp_path)}
    with socket.create_server(("127.0.0.1", 0)) as busy:
        addresses[flag] = f"127.0.0.1:{busy.getsockname()[1]}"
        done = process("serve", *(word for pair in addresses.items() for word in pair))
    assert (done.returncode, done.stdout) == (69, b"")
    assert done.stderr.decode().startswith(
        f"modelsplit: cannot listen on {addresses[flag]}: another program listens there; choose "
        f"another, as in {flag} 127.0.0.1:115"
    )


# --- Data ---------------------------------------------------------------------------------------


def test_a_good_policy_is_0(capsys: Capture) -> None:
    assert run("check-config") == 0
    assert ": ok (" in capsys.readouterr().out


def test_a_route_is_0_and_one_that_would_be_refused_is_1(capsys: Capture) -> None:
    assert run("route", "planner", "--json") == 0
    out = capsys.readouterr()
    assert json.loads(out.out)["llm_role"] == "PLANNER"
    assert run("route", "planner", "--role", "BOSS") == 1


def test_keys_made_written_and_checked(tmp_path: Path, capsys: Capture) -> None:
    assert run("keys", "new", "--name", "laptop", "--roles", "chat", "--json") == 0
    entry = json.loads(capsys.readouterr().out)["entry"]
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"version": 1, "keys": [entry]}))
    assert run("keys", "check", MODELSPLIT_KEYS=str(path)) == 0
    assert capsys.readouterr().out == f"{path}: ok (1)\n  laptop           CHAT\n"
    path.write_text("{}")
    assert run("keys", "check", str(path)) == 1
    assert f"{path}: $.keys: missing; add it\n{path}: $.version: missing" in capsys.readouterr().err
    assert run("keys", "new", "--name", "a b") == 2
    assert run("keys", "check") == 2


def test_serve_with_a_bad_file_of_keys_is_78(bad_policy: str, capsys: Capture) -> None:
    assert run("serve", "--keys", bad_policy) == 78
    assert "$.extends: unknown key; known here: version, keys" in capsys.readouterr().err


def test_a_reader_that_has_left_is_not_an_error() -> None:
    """As in ``modelsplit check-config | head -0``."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = process("check-config", stdout=write_end, PYTHONUNBUFFERED="")
    os.close(write_end)
    assert (done.returncode, done.stderr) == (0, b"")


# Each is megabytes: the stand-in of `demo`, the schema validator before a call brings a schema,
# the price table before a policy leaves it a price. Nothing asks for the others at all.
NOT_TO_SERVE = {
    *("modelsplit_sim", "jsonschema_rs", "genai_prices"),
    *("multiprocessing", "xml", "unittest", "pdb", "tkinter", "setuptools", "yaml", "requests"),
}


def test_a_process_that_serves_carries_nothing_that_it_does_not_need() -> None:
    look = (
        "import sys; before = set(sys.modules); import modelsplit_proxy.__main__;"
        "print(*set(sys.modules) - before)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", look], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "modelsplit_proxy.cli.serve" in loaded
    assert "modelsplit_proxy.cli.commands" not in loaded
    assert not NOT_TO_SERVE & {name.partition(".")[0] for name in loaded}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["serve", "--lissten", "1"], "arguments: --lissten 1; did you mean --listen?\n"),
        (["requests", "--sinze=1h"], "arguments: --sinze=1h; did you mean --since?\n"),
        (["budget", "approve", "--usd", "5", "--days", "7", "--reason", "x", "--zz"], ": --zz\n"),
    ],
)
def test_a_flag_that_a_command_does_not_know_is_told_with_the_one_that_was_meant(
    words: list[str], told: str, capsys: Capture
) -> None:
    assert run(*words) == 2
    assert capsys.readouterr().err.endswith(told)
