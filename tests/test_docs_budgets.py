"""docs/budgets.md shows what the commands and answers say, and its numbers are the policy's."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from modelsplit_policy.budgets import Exhausted, Standing, nano
from modelsplit_policy.config.model import ModelPolicy
from modelsplit_policy.failures import ERRORS, ErrorCode, Reason
from modelsplit_proxy.cli import main as cli
from modelsplit_proxy.config import policy_file
from modelsplit_proxy.protocol import budget_text
from modelsplit_proxy.storage.writer import URGENT_S
from support.stores import opened

PAGE = (Path(__file__).parents[1] / "docs" / "budgets.md").read_text(encoding="utf-8")
SHIPPED = policy_file.load(None).policy
# 12 minutes before 03:14 UTC on some day.
NIGHT = 1_795_402_920.0
BY = ("--by", "kim", "--reason", "trial of the planner")


def heavy(**said: Any) -> Standing:
    row = SHIPPED.budgets[0]
    values: dict[str, Any] = {
        "name": row.name,
        "window": row.window,
        "window_s": row.window_s,
        "shadow": False,
        "calls": row.calls,
        "max_calls": row.calls,
        "nano_usd": 0,
        "max_nano_usd": None,
        "frees_in_s": 720.0,
        "presumed": False,
    }
    return Standing(**(values | said))


def same_in_form(one: str, other: str) -> bool:
    """Equal but for dates."""
    form = r"20\d\d-\d\d-\d\d \d\d:\d\d"
    return re.sub(form, "when", one) == re.sub(form, "when", other)


def test_the_shipped_budgets_are_as_told() -> None:
    row, cloud = SHIPPED.budgets
    assert row.models == ("gpt-oss:20b",)
    assert f"`gpt-oss:20b` {row.calls} calls an hour" in PAGE
    assert f"the cloud {cloud.calls} calls and {cloud.usd:g} US\ndollars a day" in PAGE
    assert f"(policy.md#modelsmax_output_tokens), {default_tokens()} unless" in PAGE
    assert f"waits {URGENT_S:g} s, then" in PAGE


def default_tokens() -> int:
    return ModelPolicy().max_output_tokens


def test_the_answers_are_what_is_sent() -> None:
    (few,) = budget_text.header_lines([heavy(calls=4, frees_in_s=2820.0)])
    (none,) = budget_text.header_lines([heavy()])
    assert few.decode().replace("\r", "") in PAGE
    assert none.decode().replace("\r", "") in PAGE
    failure = budget_text.refusal(Exhausted(heavy(), Reason.CALLS, 0, 720.0), NIGHT)
    assert f'{{"error":{json.dumps(failure.message)}, …}}' in PAGE
    assert f"HTTP/1.1 {failure.status} {failure.phrase}\n" in PAGE
    assert "x-should-retry: false\n" in PAGE


def test_the_status_lines_are_what_status_says() -> None:
    cloud = heavy(
        name="cloud",
        window="1d",
        calls=2,
        max_calls=9,
        nano_usd=nano(0.31),
        max_nano_usd=nano(5.0),
        frees_in_s=19 * 3600.0,
    )
    for standing in (heavy(calls=4), cloud):
        assert f"\nbudget   {budget_text.line(budget_text.fields(standing))}\n" in PAGE


def test_the_transcript_is_what_the_commands_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with opened(tmp_path):
        at = ("--state", str(tmp_path))
    (block,) = re.findall(r"```\n(\$ modelsplit budget approve .*?)```", PAGE, re.DOTALL)
    said = {}
    for part in block.split("$ modelsplit ")[1:]:
        command, _, text = part.partition("\n")
        said[command.split()[1]] = text
    approve = ("budget", "approve", "--usd", "5", "--days", "7", *BY)
    done = ("budget", "revoke", "--by", "kim", "--reason", "done for today")
    for command in (approve, ("budget", "show"), done):
        assert cli.run([*command, *at], {}) == 0
        assert same_in_form(capsys.readouterr().out, said[command[1]])


def test_every_reason_of_a_budget_is_explained_on_one_of_the_pages() -> None:
    errors = (Path(__file__).parents[1] / "docs" / "errors.md").read_text(encoding="utf-8")
    for code in (ErrorCode.BUDGET_EXHAUSTED, ErrorCode.BUDGET_NOT_APPROVED):
        for reason in ERRORS[code].reasons:
            assert f"| `{reason}` |" in errors
    for reason in (Reason.COUNTS_LOST, Reason.LEDGER_UNAVAILABLE):
        assert f"`{reason}`" in PAGE
