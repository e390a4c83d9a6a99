"""``modelsplit doctor`` as a whole: one screen, an exit code, a command behind each finding."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from modelsplit_proxy.cli import doctor
from modelsplit_proxy.cli.doctor import CHECKS, Report, examine
from modelsplit_proxy.cli.doctor_findings import Finding, Unseen
from modelsplit_proxy.cli.main import run
from modelsplit_sim.config import SimConfig
from support.doctoring import answer, look, table
from support.harness import in_front_of, running
from support.ports import kept_port, stand_in

ABOUT = {
    "version": "0.1.0",
    "running": True,
    "ollama": "0.33.0",
    "upstream": "http://h:1",
    "policy": "p",
    "state": "/s",
}
FOUND = Finding("models", "PLANNER: qwen3:4b is not installed", "ollama pull qwen3:4b")


def report(findings: tuple[Finding, ...] = (), unseen: tuple[Unseen, ...] = ()) -> Report:
    return Report(ABOUT, findings, unseen, ("clock", "state"), {"x does not run": ["hosts"]})


def test_the_exit_code_tells_findings_then_what_could_not_be_seen() -> None:
    unseen = (Unseen("ports", "this system has no /proc/net/tcp"),)
    assert [report((FOUND,), unseen).code, report((), unseen).code] == [1, 3]
    # Who is not there could not be looked at either.
    assert [report().code, replace(report(), skipped={}).code] == [3, 0]


def test_where_no_modelsplit_runs_it_says_how_to_start_it_as_this_was_called(
    tmp_path: Path,
) -> None:
    here = look(tmp_path, flags={"--policy": ("my policy.json",), "--allow-host": ("a", "b")})
    table(here.proc)
    told = examine(here, "p")
    assert (told.findings, told.code) == ((), 3)
    assert [*told.lines()][-2:] == [
        "not looked at, since modelsplit does not answer: loads, hosts, service",
        "next     modelsplit serve --policy 'my policy.json' --allow-host a --allow-host b",
    ]


def test_what_hangs_on_a_policy_that_cannot_be_read_is_not_called_fine(tmp_path: Path) -> None:
    broken = tmp_path / "mine.json"
    broken.write_text("{")
    here = look(tmp_path, settings={"policy": broken}, policy=None)
    table(here.proc)
    told = examine(here, "unreadable")
    assert [finding.check for finding in told.findings] == ["policy"]
    assert told.skipped["the policy cannot be read"] == ["fleet", "models", "parallel", "cloud"]


def test_a_finding_is_shown_with_the_command_that_mends_it() -> None:
    unseen = (Unseen("ports", "no table"),)
    assert [*report((FOUND,), unseen).lines()] == [
        "modelsplit 0.1.0 runs; Ollama 0.33.0 at http://h:1",
        "policy p; state /s",
        "",
        "FINDING  models: PLANNER: qwen3:4b is not installed",
        "   mend  ollama pull qwen3:4b",
        "",
        "UNSEEN   ports: no table",
        "",
        "1 finding; fine: clock, state",
        "not looked at, since x does not run: hosts",
    ]


def test_what_needs_somebody_who_is_not_there_is_not_called_fine(tmp_path: Path) -> None:
    here = look(tmp_path, version=None)
    table(here.proc)
    told = examine(here, "shipped default")
    assert [finding.check for finding in told.findings] == ["Ollama"]
    assert told.skipped == {
        "Ollama does not answer": ["models", "memory", "parallel", "keep-alive"],
        "modelsplit does not answer": ["loads", "hosts", "service"],
    }
    skipped = {name for names in told.skipped.values() for name in names}
    assert {*told.fine, *skipped, "Ollama", "ports"} == {check.name for check in CHECKS}


def test_a_modelsplit_in_ollamas_place_is_not_asked_as_ollama(tmp_path: Path) -> None:
    here = look(tmp_path, version=answer({"version": "0.33.0"}, via="1.1 modelsplit"))
    table(here.proc)
    told = examine(here, "shipped default")
    assert [finding.check for finding in told.findings] == ["loop"]
    assert "models" in told.skipped["Ollama does not answer"]


async def test_a_running_proxy_in_front_of_a_whole_ollama_is_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(SimConfig(), state=tmp_path / "state") as up:
        words = ["doctor", "--json", "--listen", f"127.0.0.1:{up.port}"]
        words += ["--admin", f"127.0.0.1:{up.admin_port}"]
        words += ["--upstream", f"http://127.0.0.1:{up.sim.port}"]
        await asyncio.to_thread(run, words, {"HOME": str(tmp_path)})
    told = json.loads(capsys.readouterr().out)
    assert told["running"]
    assert told["ollama"]
    assert told["state"] == str(tmp_path / "state")
    assert told["skipped"] == {}
    assert {"policy", "Ollama", "loop", "ports", "models", "state file", "service"} <= {
        *told["fine"]
    }


def test_without_anybody_it_says_how_to_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with kept_port() as port, kept_port() as admin, kept_port() as upstream:
        words = ["doctor", "--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}"]
        words += ["--upstream", f"http://127.0.0.1:{upstream}", "--state", str(tmp_path)]
        bundle = tmp_path / "doctor.tar.gz"
        assert run([*words, "--bundle", str(bundle)], {}) == 1
    told = capsys.readouterr()
    assert f"mend  OLLAMA_HOST=127.0.0.1:{upstream} ollama serve" in told.out
    assert "look into it before you send it" in told.err
    assert bundle.exists()


def test_a_policy_that_cannot_be_read_hides_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "policy.json"
    path.write_text("{")
    with kept_port() as port, kept_port() as upstream:
        words = ["doctor", "--json", "--policy", str(path), "--state", str(tmp_path)]
        words += ["--admin", f"127.0.0.1:{port}", "--upstream", f"http://127.0.0.1:{upstream}"]
        assert run(words, {}) == 1
    checks = {finding["check"] for finding in json.loads(capsys.readouterr().out)["findings"]}
    assert {"policy", "Ollama"} <= checks


def test_a_flag_that_cannot_be_read_is_wrong_usage() -> None:
    assert run(["doctor", "--admin", "nowhere"], {}) == 2
    assert doctor.COMMAND.name == "doctor"


@pytest.mark.parametrize(
    ("check", "cause"),
    [
        ("Ollama", "Ollama at http://127.0.0.1:1 is not answering (connection refused)"),
        ("models", "PLANNER cannot be served: neither qwen3:4b nor qwen3:8b is installed"),
        ("state", "the state file: database or disk is full"),
        ("cloud", "anthropic has no key, so none of its models can be asked: $KEY is not set"),
    ],
)
def test_one_cause_is_one_finding(check: str, cause: str) -> None:
    """Whether the running proxy has seen it as well or not."""
    own, other = Finding(check, "as the check says it", "mend it"), Finding("service", "late", "x")
    also = Finding("service", cause, "as the proxy says it")
    assert doctor._once([own, also, other, own]) == (own, other)
    assert doctor._once([also, other]) == (also, other)


async def test_where_ollama_has_gone_one_finding_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with stand_in() as sim:
        assert sim.port is not None
        async with in_front_of(sim.port) as up:
            await sim.stop()
            await up.until(lambda: up.app.service.verdict().cause.startswith("Ollama at "))
            words = ["doctor", "--json", "--listen", f"127.0.0.1:{up.port}"]
            words += ["--admin", f"127.0.0.1:{up.admin_port}"]
            await asyncio.to_thread(run, words, {"HOME": str(tmp_path)})
    findings = json.loads(capsys.readouterr().out)["findings"]
    checks = [row["check"] for row in findings]
    assert [check for check in checks if check in {"Ollama", "service"}] == ["Ollama"]
