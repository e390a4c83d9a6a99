"""``docs/dependencies.md`` describes exactly what ``pyproject.toml`` asks for."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?P<range>[<>=!~].*)")
FACTS = ("For", "Why this one", "Range", "Licence")


def required(pyproject: str) -> dict[str, dict[str, str]]:
    """Group -> package -> range, as the build and the installer see it."""
    document = tomllib.loads(pyproject)
    project = document["project"]
    extras = project["optional-dependencies"]
    groups = {
        "Runtime": project["dependencies"],
        "Build": document["build-system"]["requires"],
        "Optional": [line for name in extras.keys() - {"dev", "clients"} for line in extras[name]],
        "Development": extras["dev"],
        "Clients": extras["clients"],
    }
    return {group: dict(map(split, lines)) for group, lines in groups.items()}


def split(requirement: str) -> tuple[str, str]:
    match = REQUIREMENT.fullmatch(requirement)
    assert match, f"{requirement} has no range"
    return match["name"], match["range"]


def described(page: str) -> dict[str, dict[str, dict[str, str]]]:
    """Group (``##``) -> package (``###``) -> what each ``- **Fact:**`` says, on one line."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    for group in page.split("\n## ")[1:]:
        opening, *entries = group.split("\n### ")
        title = opening.partition("\n")[0].strip()
        found[title] = {}
        for entry in entries:
            name, _, text = entry.partition("\n")
            facts = re.findall(r"- \*\*(.+?):\*\* (.+?)(?=\n- \*\*|\Z)", text, re.DOTALL)
            found[title][name] = {fact: " ".join(said.split()) for fact, said in facts}
    return found


def differences(pyproject: str, page: str) -> list[str]:
    """What the two say differently; empty when they agree."""
    wanted = {(g, n): r for g, names in required(pyproject).items() for n, r in names.items()}
    given = {(g, n): facts for g, names in described(page).items() for n, facts in names.items()}
    found = [f"{name} ({group}) is not described" for group, name in wanted.keys() - given.keys()]
    found += [f"{name} ({group}) is not required" for group, name in given.keys() - wanted.keys()]
    for key in sorted(wanted.keys() & given.keys()):
        facts = given[key]
        found += [f"{key[1]} does not say: {fact}" for fact in FACTS if not facts.get(fact)]
        if facts.get("Range") not in {None, f"`{wanted[key]}`"}:
            found.append(f"{key[1]} is {wanted[key]}, described as {facts['Range']}")
    return sorted(found)


PYPROJECT = (ROOT / "pyproject.toml").read_text()
PAGE = (ROOT / "docs" / "dependencies.md").read_text()


def test_the_page_describes_what_is_required_and_nothing_else() -> None:
    assert differences(PYPROJECT, PAGE) == []


def test_every_range_has_both_ends() -> None:
    ranges = [r for names in required(PYPROJECT).values() for r in names.values()]
    assert ranges
    assert all(">=" in r and "<" in r.replace(">=", "") for r in ranges)


@pytest.mark.parametrize(
    ("old", "new", "difference"),
    [
        ("### uvloop", "### trio", "uvloop (Runtime) is not described"),
        ("### uvloop", "### trio", "trio (Runtime) is not required"),
        ("`>=3.13,<4`", "`>=3.12,<4`", "orjson is >=3.13,<4, described as `>=3.12,<4`"),
        ("## Build", "## Tools", "hatchling (Build) is not described"),
        ("- **Licence:** MPL-2.0\n", "", "hypothesis does not say: Licence"),
    ],
)
def test_a_page_that_says_otherwise_is_seen(old: str, new: str, difference: str) -> None:
    assert old in PAGE
    assert difference in differences(PYPROJECT, PAGE.replace(old, new, 1))


def test_the_clients_lock_holds_what_the_extra_asks_for() -> None:
    lock = (ROOT / "tests" / "clients" / "python" / "requirements.txt").read_text()
    locked = dict(line.split("==") for line in lock.splitlines())
    wanted = required(PYPROJECT)["Clients"]
    assert {name: f">={locked[name]}" for name in wanted} == {
        name: wanted[name].partition(",")[0] for name in wanted
    }


def test_the_lock_of_the_node_clients_names_no_registry() -> None:
    lock = json.loads((ROOT / "tests" / "clients" / "node" / "package-lock.json").read_text())
    packages = [package for path, package in lock["packages"].items() if path]
    assert packages
    assert all("integrity" in package and "resolved" not in package for package in packages)
