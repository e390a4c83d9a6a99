"""The commands, as people and scripts run them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from modelsplit_proxy.cli.main import run
from modelsplit_sim.config import SimConfig
from modelsplit_sim.server import Sim
from support.ports import kept_port
from support.process import redirected, spawned

Outcome = tuple[int, str, str]
Command = Callable[..., Outcome]

# Where no proxy answers, whoever else runs one on this machine.
NOBODY = {"MODELSPLIT_ADMIN": "127.0.0.1:1"}
POLICY = '{"extends":"default","roles":{"PLANNER":{"primary":"qwen3:1.7b"}}}'


@pytest.fixture
def modelsplit(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command as its process would: exit code, stdout, stderr."""

    def command(*arguments: str, env: dict[str, str] | None = None) -> Outcome:
        try:
            code = run(list(arguments), NOBODY | (env or {}))
        except SystemExit as ended:  # argparse's own
            code = int(ended.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


@pytest.fixture
def policy(tmp_path: Path) -> str:
    path = tmp_path / "policy.json"
    path.write_text(POLICY)
    return str(path)


def test_no_command_is_wrong_usage(modelsplit: Command) -> None:
    code, out, talk = modelsplit()
    assert (code, out) == (2, "")
    assert "modelsplit demo" in talk


@pytest.mark.parametrize("command", ["", "serve", "demo", "check-config", "route", "keys"])
def test_help(modelsplit: Command, command: str) -> None:
    code, out, talk = modelsplit(*filter(None, [command]), "--help")
    assert (code, talk) == (0, "")
    assert out.startswith(f"usage: modelsplit {command}".rstrip())
    if command in {"serve", "check-config", "route", "keys"}:
        assert "example" in out


def test_version(modelsplit: Command) -> None:
    assert modelsplit("--version") == (0, f"modelsplit {version('modelsplit')}\n", "")


def test_an_unknown_command_is_wrong_usage(modelsplit: Command) -> None:
    code, out, talk = modelsplit("surf")
    assert (code, out) == (2, "")
    assert "surf" in talk


def test_a_good_policy(modelsplit: Command, policy: str) -> None:
    code, out, talk = modelsplit("check-config", policy)
    assert (code, talk) == (0, "")
    assert out.startswith(f"{policy}: ok (")


def test_the_shipped_policy_is_good(modelsplit: Command) -> None:
    code, out, _ = modelsplit("check-config")
    assert (code, out.startswith("shipped default: ok (")) == (0, True)


def test_a_good_policy_as_json(modelsplit: Command, policy: str) -> None:
    code, out, _ = modelsplit("check-config", "--json", policy)
    told = json.loads(out)
    assert code == 0
    assert (told["ok"], told["source"], told["warnings"]) == (True, policy, [])
    assert len(told["digest"]) == 64


def test_every_error_of_a_policy_at_once(modelsplit: Command, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text('{"extends":"default","globl":{},"roles":{"PLANNER":{"timeout_ms":-1}}}')
    code, out, talk = modelsplit("check-config", str(path))
    assert (code, out) == (1, "")
    assert [line.startswith(f"{path}: $.") for line in talk.splitlines()] == [True, True]
    assert "$.globl" in talk
    assert "$.roles.PLANNER.timeout_ms" in talk
    code, out, talk = modelsplit("check-config", str(path), "--json")
    told = json.loads(out)
    assert (code, talk, told["ok"]) == (1, "", False)
    assert [p["path"] for p in told["problems"]] == ["$.globl", "$.roles.PLANNER.timeout_ms"]


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"version":1,"version":1}', "\xff"])
def test_a_file_that_is_no_policy(modelsplit: Command, tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "no.json"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    code, out, talk = modelsplit("check-config", str(path))
    assert (code, out) == (1, "")
    assert str(path) in talk
    assert "Traceback" not in talk
    code, out, talk = modelsplit("check-config", str(path), "--json")
    assert (code, json.loads(out)["ok"], talk) == (1, False, "")


async def test_online(modelsplit: Command, policy: str) -> None:
    async with Sim(SimConfig(models=("planner", "qwen3:8b", "gemma3:12b"))) as sim:
        command = ("check-config", policy, "--online", "--upstream", sim.url)
        code, out, _ = await asyncio.to_thread(modelsplit, *command)
        assert code == 0
        assert 'alias "planner" of PLANNER hides the installed model of that name' in out
        assert "ollama pull qwen3:1.7b" in out
        assert "ollama pull qwen3:8b" not in out
        code, out, _ = await asyncio.to_thread(modelsplit, *command, "--json")
        assert (code, len(json.loads(out)["warnings"]) >= 2) == (0, True)


def test_online_without_ollama(modelsplit: Command, policy: str) -> None:
    with kept_port() as port:
        upstream = ("--upstream", f"http://127.0.0.1:{port}")
        code, out, talk = modelsplit("check-config", policy, "--online", *upstream)
    assert (code, talk) == (1, "")
    assert "cannot be asked" in out


def test_route(modelsplit: Command, policy: str) -> None:
    code, out, _ = modelsplit("route", "planner", "--policy", policy)
    assert code == 0
    policy_line, *lines = out.splitlines()
    assert policy_line.startswith(f"policy    {policy} (")
    assert lines[0] == 'role      PLANNER  ("planner" is an alias of this role)'
    assert lines[1] == "attempt 1 qwen3:1.7b  (timeout 15 s)"
    assert lines[2] == "attempt 2 qwen3:8b  (timeout 30 s)"


def test_route_as_json(modelsplit: Command) -> None:
    code, out, _ = modelsplit("route", "llama3.2:1b", "--role", "executor", "--json")
    told = json.loads(out)
    assert (code, told["llm_role"], told["route_reason"]) == (0, "EXECUTOR", "header")
    assert [c["model"] for c in told["candidates"]] == ["llama3.2:1b", "gemma3:12b"]


def test_route_says_what_would_be_refused(modelsplit: Command) -> None:
    code, out, talk = modelsplit("route", "planner", "--role", "BOSS")
    assert (code, out) == (1, "")
    assert "E_BAD_REQUEST" in talk
    code, out, talk = modelsplit("route", "planner", "--role", "BOSS", "--json")
    assert (code, json.loads(out)["error_code"]) == (1, "E_BAD_REQUEST")
    assert talk.startswith("modelsplit: nobody listens at http://127.0.0.1:1:")


def test_route_of_a_policy_that_is_not_there(modelsplit: Command) -> None:
    code, out, talk = modelsplit("route", "planner", "--policy", "/nowhere/policy.json")
    assert (code, out) == (1, "")
    assert "/nowhere/policy.json" in talk


async def test_a_reader_that_leaves_is_no_error() -> None:
    async with spawned("modelsplit_proxy", "check-config", closed_stdout=True) as process:
        code, _, talk = await process.outcome()
    assert (code, talk) == (0, "")


# What they say, and what they exit with where somebody listens.
COMMANDS = {
    ("route", "planner", "--admin", "127.0.0.1:1"): 0,
    ("keys", "new", "--name", "a"): 0,
    ("check-config",): 0,
    ("--help",): 0,
    ("serve", "--help"): 0,
    ("nonsense",): 2,
    ("status", "--admin", "127.0.0.1:1"): 3,
}


@pytest.mark.parametrize(("command", "code"), COMMANDS.items())
@pytest.mark.parametrize("redirections", ["2>&-", "2>/dev/full", ">&-", "<&- >&- 2>&-"])
async def test_a_stream_that_nobody_reads_leaves_the_exit_code_alone(
    command: tuple[str, ...], code: int, redirections: str
) -> None:
    async with spawned("modelsplit_proxy", *command, wrapper=redirected(redirections)) as process:
        ended, _, talk = await process.outcome()
    assert ended == code
    assert "Traceback" not in talk


@pytest.mark.parametrize("command", [command for command, code in COMMANDS.items() if not code])
async def test_data_that_could_not_be_written_is_told_and_is_1(command: tuple[str, ...]) -> None:
    async with spawned("modelsplit_proxy", *command, wrapper=redirected(">/dev/full")) as process:
        code, _, talk = await process.outcome()
    assert code == 1
    assert talk.endswith("modelsplit: the output cannot be written: No space left on device\n")
    assert "Traceback" not in talk
    assert "Exception ignored" not in talk


@pytest.mark.parametrize("command", [("--help",), ("check-config",), ("serve", "--help")])
async def test_a_reader_that_leaves_is_no_error_whatever_was_said(command: tuple[str, ...]) -> None:
    async with spawned("modelsplit_proxy", *command, closed_stdout=True) as process:
        code, _, talk = await process.outcome()
    assert (code, talk) == (0, "")


@pytest.mark.parametrize(("redirections", "code"), [("| head -2", 0), (">/dev/full", 1)])
async def test_demo_goes_on_where_nobody_reads(redirections: str, code: int) -> None:
    """Its calls are not to fail because a line about them could not be written."""
    command = ("--once", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    wrapper = ("/bin/sh", "-c", f'"$@" {redirections}', "sh")
    async with spawned("modelsplit_proxy", "demo", *command, wrapper=wrapper) as process:
        ended, _, talk = await process.outcome()
    assert ended == code
    assert "Traceback" not in talk
    assert "BrokenPipe" not in talk


async def test_demo_tells_the_whole_story() -> None:
    options = ("--once", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    async with spawned("modelsplit_proxy", "demo", *options) as process:
        code, out, talk = await process.outcome()
    assert code == 0
    assert "Traceback" not in talk
    first, *_ = out.splitlines()
    assert first.startswith("stand-in Ollama on ")
    # A title, then the calls that it is about: in the order in which they happen.
    parts = [part.splitlines()[:1] for part in out.split("\n\n")[1:]]
    assert [title.partition(":")[0] for [title] in parts] == [
        "a planner, an executor and a chat, one after the other (first calls load)",
        "five planners and an executor at once; a fresh start learns how many at once pay",
        "the planner's model fails once; the fallback answers",
        "a role nobody knows, and a planner that will not wait",
    ]
    calls = [line for line in out.splitlines() if line.startswith("  ")]
    assert len(calls) == 14
    assert sum("fallback after E_UPSTREAM_LOCAL" in line for line in calls) == 1
    assert sum("E_BAD_REQUEST unknown_role" in line for line in calls) == 1
    assert sum("E_OVERLOAD_THROTTLED queue_timeout" in line for line in calls) == 1


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--policy", "/nowhere/policy.json"), 78, "/nowhere/policy.json"),
        (("--listen", "nonsense"), 78, "--listen"),
        (("--listen", "127.0.0.1:70000"), 78, "--listen"),
        (("--upstream", "https://x"), 78, "--upstream"),
        (("--upstream", "127.0.0.1:11435"), 78, "our own --listen"),
        (("--log-format", "xml"), 78, "--log-format"),
        (("--drain", "soon"), 78, "--drain"),
        (("--max-body", "much"), 78, "--max-body"),
        (("--no-such-flag",), 2, "--no-such-flag"),
    ],
)
def test_a_wrong_setting_ends_it_at_once(
    modelsplit: Command, options: tuple[str, ...], code: int, words: str
) -> None:
    ended, out, talk = modelsplit("serve", *options)
    assert (ended, out) == (code, "")
    assert words in talk


def test_a_wrong_setting_from_the_environment(modelsplit: Command) -> None:
    code, _, talk = modelsplit("serve", env={"MODELSPLIT_DRAIN": "soon"})
    assert code == 78
    assert "soon" in talk
