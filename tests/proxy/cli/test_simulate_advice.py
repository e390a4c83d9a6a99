"""``modelsplit simulate --advise`` from its flags to a policy that can be used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
import pytest

from modelsplit_policy.config.parser import parse
from modelsplit_policy.vocabulary import Role
from modelsplit_proxy.cli.main import run
from modelsplit_proxy.cli.simulate_advice import changed_policy, lines
from modelsplit_proxy.config import policy_file
from support.swapping import write_swapping

if TYPE_CHECKING:
    from pathlib import Path

SEARCH = ("--advise", "--seeds", "5", "--budget", "60", "--keep", "line", "--keep", "host")


def test_advice_is_a_policy_with_its_evidence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "advised.json"
    flags = write_swapping(tmp_path, 100)
    assert run(["simulate", *flags, *SEARCH, "--json", "--write", str(file)], {}) == 0
    advice = orjson.loads(capsys.readouterr().out)
    assert advice["is_better"]
    assert advice["models_change"]
    assert advice["ollama"] == [], "the host was to be left alone"
    assert advice["advised"]["capacity"]["value"] > advice["today"]["capacity"]["value"]
    before, after = (advice[name]["at_its_load"] for name in ("today", "advised"))
    assert before["load"] == after["load"], "side by side, with the same calls"
    assert {row["path"].rpartition(".")[2] for row in advice["diff"]} >= {"primary"}
    assert orjson.loads(file.read_bytes()) == advice["file"]
    assert run(["check-config", str(file)], {}) == 0
    shown = "\n".join(lines(advice))
    assert shown.startswith("today's policy carries ")
    assert "the policy with this change (--write FILE writes it):" in shown
    assert '"extends": "default"' in shown
    assert f"{advice['runs']} runs in {advice['seconds']:.0f} s" in shown
    assert "what ends it, at " in shown
    assert "on the half of the traffic that was not searched:" in shown
    assert "no simulation knows" in shown
    assert 1 <= advice["better_runs"] <= advice["judged_runs"] == 5
    assert f"in {advice['better_runs']} of 5 runs of the same calls the change does better" in shown
    told = "\n".join(lines(advice, str(file)))
    assert f"the policy with this change: {file}" in told
    before_nothing = advice["today"] | {"capacity": advice["today"]["capacity"] | {"value": 0.0}}
    assert next(lines(advice | {"today": before_nothing})).startswith(
        "today's policy carries nothing of this load, with this change about "
    )
    nothing = "\n".join(lines(advice | {"is_better": False}))
    assert nothing.startswith("nothing better than the current policy beyond chance")
    assert "does not hold up on the other one" in nothing


def test_a_policy_that_is_no_change_of_the_shipped_one_is_written_whole() -> None:
    overlay = {"roles": {"PLANNER": {"reserved": 0}}}
    own = policy_file.shipped()
    del own["models"]["gpt-oss:20b"]
    whole = changed_policy(own, overlay)
    assert "extends" not in whole
    assert parse(whole).roles[Role.PLANNER].reserved == 0
    assert changed_policy(policy_file.shipped(), overlay) == {"extends": "default", **overlay}
