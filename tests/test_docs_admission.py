"""docs/admission.md: its worked example is worked, and its words are the code's."""

from __future__ import annotations

import json
import re
from pathlib import Path

from modelsplit_policy.admission import from_policy
from modelsplit_policy.config.parser import parse
from modelsplit_policy.failures import ERRORS, ErrorCode
from modelsplit_policy.tickets import Hold, Place, Ticket
from modelsplit_policy.vocabulary import Role
from modelsplit_proxy.config.policy_file import merge, shipped
from support.harness import NO_LEARNING, policy

PAGE = (Path(__file__).parents[1] / "docs" / "admission.md").read_text(encoding="utf-8")
EXAMPLE = re.findall(
    r"^\| ([A-Z]+) \| ([\d.]+) s \| (\d) s \| ([\d.]+) s \| (\d)\w\w \|$", PAGE, re.MULTILINE
)


def first_words(header: str) -> set[str]:
    """The first column of the table with this header."""
    table = PAGE.partition(f"\n| {header} |")[2].partition("\n\n")[0]
    return set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))


def test_the_example_comes_out_as_it_says() -> None:
    loaded = policy(NO_LEARNING).policy
    admission = from_policy(loaded)
    busy = [Ticket(Role.PLANNER, "qwen3:4b", 0.0)]
    busy += [Ticket(Role.CHAT, f"m{number}", 0.0) for number in range(5)]
    for ticket in busy:
        assert admission.ask(ticket, 0.0) is None
        assert ticket.place is Place.SEATED
    for role, arrived, ageing, counts, _ in sorted(EXAMPLE, key=lambda row: float(row[1])):
        assert int(ageing) * 1000 == loaded.roles[Role(role)].ageing_ms
        assert float(arrived) + int(ageing) == float(counts)
        waiting = Ticket(Role(role), role, float(arrived))
        assert admission.ask(waiting, waiting.arrived) is None
        assert waiting.place is Place.WAITING
    went = []
    for ticket in busy[1:]:
        admission.leave(ticket, 9.9)
        went += [seated.role for seated in admission.fill(9.9)]
    assert went == [role for role, *_, place in sorted(EXAMPLE, key=lambda row: row[4])]
    assert len(went) == 4


def test_every_hold_and_every_refusal_is_explained() -> None:
    assert first_words("hold") == set(Hold)
    assert first_words("reason") == set(ERRORS[ErrorCode.OVERLOAD_THROTTLED].reasons)


def test_the_example_of_pinning_is_a_policy() -> None:
    (block,) = re.findall(r"```json\n(\{.*\})\n```", PAGE)
    changes = {key: value for key, value in json.loads(block).items() if key != "extends"}
    parse(merge(shipped(), changes))
