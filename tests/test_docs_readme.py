"""The README's table of roles is the shipped policy, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from modelsplit_policy.config.model import RolePolicy
from modelsplit_policy.vocabulary import Role
from modelsplit_proxy.config import policy_file

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def seconds(milliseconds: int | None) -> str:
    return "none" if milliseconds is None else f"{milliseconds / 1000:g} s"


def row(role: Role, policy: RolePolicy) -> list[str]:
    times = [seconds(policy.timeout_ms)]
    if policy.fallback is not None:
        times.append(seconds(policy.fallback_timeout_ms))
    shared = "no limit" if role is Role.CLOUD else "global"
    return [
        role.value,
        policy.primary or "as the client named it",
        policy.fallback or "none",
        ", ".join(times),
        str(policy.max_concurrent or shared),
        seconds(policy.max_wait_ms),
    ]


def test_the_table_of_roles_is_the_shipped_policy() -> None:
    lines = re.findall(r"^\| ([A-Z]+ \|.*) \|$", README, re.MULTILINE)
    said = [[cell.strip() for cell in line.split("|")] for line in lines]
    roles = policy_file.load(None).policy.roles
    assert said == [row(role, roles[role]) for role in Role]


def test_the_digest_in_the_examples_is_the_shipped_policys() -> None:
    digest = policy_file.load(None).short_digest
    operations = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    for page in (README, operations):
        assert set(re.findall(r"shipped default \((\w+)\)", page)) == {digest}


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text(encoding="utf-8")):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
