"""``modelsplit slo``, as somebody at a terminal or a build server meets it.

The weeks are made up, since none can be waited for: what passes here has not been measured.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from modelsplit_proxy.cli.main import run
from modelsplit_sim.config import SimConfig
from support.harness import running
from support.slo_history import COMPARED, EMPTY, MINUTE_US, History, breaching, passing, write

Outcome = tuple[int, str, str]
Command = Callable[..., Outcome]
NOWHERE = ("--admin", "127.0.0.1:1")


@pytest.fixture
def slo(capsys: pytest.CaptureFixture[str]) -> Command:
    """Exit code, stdout, stderr."""

    def command(*arguments: str, env: dict[str, str] | None = None) -> Outcome:
        try:
            code = run(["slo", *arguments], env or {})
        except SystemExit as ended:
            code = int(ended.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


def now_us() -> int:
    return int(time.time() * 1e6) // MINUTE_US * MINUTE_US


@pytest.fixture(scope="module")
def weeks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """State files of a passing, a breaching and an empty week."""
    made: dict[str, Callable[[int], History]] = {
        "passing": passing,
        "breaching": breaching,
        "empty": lambda _: EMPTY,
    }
    places = {}
    for name, make in made.items():
        place = tmp_path_factory.mktemp(name)
        write(place, make(now_us()), COMPARED if name != "empty" else None)
        places[name] = str(place)
    return places


@pytest.mark.parametrize(
    ("name", "code", "verdict"),
    [("passing", 0, "pass"), ("breaching", 1, "BREACH"), ("empty", 3, "not enough data")],
)
def test_the_exit_code_is_the_verdict(
    slo: Command, weeks: dict[str, str], name: str, code: int, verdict: str
) -> None:
    got, out, talk = slo("--state", weeks[name])
    assert (got, talk) == (code, "")
    assert out.startswith(f"SLO {verdict}, 20")
    gates = re.findall(r"^(gate \d|targets)  (.*?)  ", out, re.MULTILINE)
    assert gates == [(f"gate {number}", verdict) for number in range(5)] + [("targets", verdict)]
    prose = [line for line in out.splitlines() if not line.startswith("  modelsplit ")]
    assert max(map(len, prose)) <= 80
    # What else to do is asked of the same file.
    assert re.findall(r"^  modelsplit .*", out, re.MULTILINE) == re.findall(
        rf"^  modelsplit .* --state {re.escape(weeks[name])}$", out, re.MULTILINE
    )


def test_over_a_day(slo: Command, weeks: dict[str, str]) -> None:
    code, out, _ = slo("--gate", "2", "--since", "24h", "--state", weeks["passing"])
    assert code == 0
    assert re.search(r"(719|720) planner calls in 1 d: ", out)
    code, out, _ = slo("--gate", "4", "--since", "24h", "--state", weeks["passing"])
    assert code == 3
    assert "records cover          1 d  >= 6 d" in out


def test_as_json_markdown_and_junit(slo: Command, weeks: dict[str, str], tmp_path: Path) -> None:
    code, out, _ = slo("--json", "--state", weeks["breaching"])
    assert (code, json.loads(out)["verdict"]) == (1, "breach")
    assert slo("--markdown", "--state", weeks["passing"])[1].startswith("# SLO: pass\n")
    report = tmp_path / "slo.xml"
    code, out, _ = slo("--junit", str(report), "--gate", "1", "--state", weeks["breaching"])
    assert out.startswith("SLO BREACH")
    [suite] = ET.fromstring(report.read_bytes())
    assert (suite.get("name"), suite.get("failures")) == ("gate 1", "4")


def test_junit_goes_where_it_can_be_written(slo: Command, weeks: dict[str, str]) -> None:
    code, _, talk = slo("--junit", "/nowhere/slo.xml", "--state", weeks["passing"])
    assert code == 2
    assert "cannot be written to /nowhere/slo.xml: No such file" in talk


def test_by_another_policy(slo: Command, weeks: dict[str, str], tmp_path: Path) -> None:
    policy = tmp_path / "policy.json"
    strict = '{"extends":"default","slo":{"planner_latency_ms":{"p95":1000},"fallback_rate":null}}'
    policy.write_text(strict)
    asked = ("--gate", "2", "--policy", str(policy), "--state", weeks["passing"])
    code, out, _ = slo(*asked)
    assert code == 1
    assert "BREACH  planner P95            2 s  < 1 s" in out
    assert "-       fallbacks\n          not judged\n" in out
    policy.write_text("{}")
    assert slo(*asked)[0] == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--gate", "9"), 'gate "9" is unknown'),
        (("--since", "soon"), 'since "soon" is neither'),
    ],
)
def test_wrong_words_are_wrong_usage(
    slo: Command, weeks: dict[str, str], arguments: tuple[str, ...], words: str
) -> None:
    code, out, talk = slo(*arguments, "--state", weeks["passing"])
    assert (code, out) == (2, "")
    assert words in talk


def test_a_file_that_is_not_there_is_not_enough_data(slo: Command, tmp_path: Path) -> None:
    code, out, talk = slo("--state", str(tmp_path / "nowhere"))
    assert (code, out) == (3, "")
    assert "not enough data: no state file there" in talk


def test_a_file_of_another_version_is_told_and_judges_nothing(slo: Command, tmp_path: Path) -> None:
    (tmp_path / "modelsplit.sqlite3").write_bytes(b"no database at all")
    code, out, _ = slo("--state", str(tmp_path))
    assert (code, out) == (3, "")


def test_where_nobody_runs_the_file_is_read(slo: Command, weeks: dict[str, str]) -> None:
    code, out, talk = slo(*NOWHERE, env={"MODELSPLIT_STATE": weeks["passing"]})
    assert code == 0
    assert out.startswith("SLO pass")
    assert (
        talk
        == "modelsplit: no modelsplit answers at http://127.0.0.1:1; its file is read instead\n"
    )


async def test_a_running_proxy_answers_by_its_own_policy(slo: Command) -> None:
    overlay = {"slo": {"planner_latency_ms": {"p95": 1}}}
    # A stand-in that answers at once may well answer within the bound.
    async with running(SimConfig(tokens=2, token_rate=100), overlay) as up, up.client() as client:
        body = {"model": "planner", "prompt": "x", "stream": False}
        for _ in range(20):
            assert (await client.request("POST", "/api/generate", body)).status == 200
        # An answer is there a moment before its call has ended.
        await up.calls.wait(20)
        admin = ("--admin", f"127.0.0.1:{up.admin_port}")
        code, out, _ = await asyncio.to_thread(slo, "--gate", "2", *admin)
        assert code == 1
        assert "< 1 ms" in out
        wrong = await asyncio.to_thread(slo, "--gate", "7", *admin)
        # The same by its file, while it runs.
        state = ("--state", str(up.app.store.path.parent))
        beside = await asyncio.to_thread(slo, "--gate", "2", *state)
    assert wrong[0] == 2
    assert beside[0] == 3
