"""docs/policy.md says one thing about every key of the policy file, and nothing about others."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest

from modelsplit_policy.config.json_schema import json_schema
from modelsplit_policy.config.model import LONG_WAIT_MS, WAIT_MS, Condition
from modelsplit_policy.config.parser import parse
from modelsplit_policy.slo.names import OBJECTIVES
from modelsplit_proxy.config.policy_file import ETC, merge, shipped

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = (Path(__file__).parents[1] / "docs" / "policy.md").read_text(encoding="utf-8")
SHAPES: dict[str, Any] = json_schema()["$defs"]


def parts(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A schema and everything it may stand for at the same place."""
    yield schema
    for option in schema.get("anyOf", ()):
        yield from parts(option)
    if "$ref" in schema:
        yield from parts(SHAPES[schema["$ref"].removeprefix("#/$defs/")])


def keys(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Every fixed key below a place: its path, its schema, and whether it is required."""
    for part in parts(schema):
        for name, inner in part.get("properties", {}).items():
            yield f"{path}.{name}", inner, name in part.get("required", ())
            yield from keys(inner, f"{path}.{name}")
        free = [part.get("additionalProperties"), *part.get("patternProperties", {}).values()]
        for inner in free:
            if isinstance(inner, dict):
                yield from keys(inner, f"{path}.*")
        if "items" in part:
            yield from keys(part["items"], f"{path}[*]")


def entries() -> dict[str, tuple[str, str]]:
    """Every entry of the page: path -> (the line of type and default, the text)."""
    found = re.findall(r"^### `(\$[^`]+)`\n(.+)\n\n((?:(?!^##).*\n)+)", PAGE, re.MULTILINE)
    return {path: (line, text) for path, line, text in found}


KEYS = {path: (schema, needed) for path, schema, needed in keys(SHAPES["Policy"], "$")}
ENTRIES = entries()


def test_every_key_has_an_entry_and_every_entry_has_a_key() -> None:
    assert set(ENTRIES) == {*KEYS, "$.extends"}
    assert PAGE.count("\n### ") == len(ENTRIES), "a heading the pattern above does not read"


@pytest.mark.parametrize("path", sorted(KEYS))
def test_an_entry_says_what_holds_if_the_key_is_left_out(path: str) -> None:
    schema, needed = KEYS[path]
    line, text = ENTRIES[path]
    said = re.fullmatch(r".+? · (?:required|default `(.+?)`)(?: · shipped .+)?", line)
    assert said, line
    assert (said[1] is None) is needed
    if said[1] is not None:
        assert json.loads(said[1]) == schema["default"]
    assert text.strip(), "an entry without a sentence"


@pytest.mark.parametrize("path", sorted(path for path in KEYS if path.endswith("_ms")))
def test_a_time_says_that_it_is_in_milliseconds(path: str) -> None:
    line, text = ENTRIES[path]
    assert "milliseconds" in (text if line.startswith("object") or "[" in path else line)


# What bounds calls of clients; what else is a number decides how often or how early we look.
LIMIT = re.compile(
    r"\$\.(global|roles\.\*|models\.\*|clients|hosts\.\*|budgets\[\*\])"
    r"\.(max_(?!hold|keep|num)\w+|\w*timeout_ms|\w*wait_ms|calls|usd|rate_per_s)"
    r"|\$\.(load|silent_parse)_timeout_ms"
)
OUTCOME = re.compile(r"E_[A-Z_]+|\bqueues\b|waits? in line|shortened|told so at once|charged")


def test_a_limit_says_what_happens_there() -> None:
    limits = {path for path in KEYS if LIMIT.fullmatch(path)}
    assert len(limits) > 15
    assert {path for path in limits if not OUTCOME.search(ENTRIES[path][1])} == set()


def test_what_is_said_to_be_shipped_is() -> None:
    for path, (line, _) in ENTRIES.items():
        said = re.search(r" · shipped `(.+)`$", line)
        if said and "*" not in path and path != "$.models":
            found: Any = shipped()
            for name in path.split(".")[1:]:
                found = found[name]
            assert json.loads(said[1]) == found, path


def test_the_page_names_the_objectives_in_order_with_their_bounds_and_what_is_shipped() -> None:
    told = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \| (.*?) ?\|$", PAGE, re.MULTILINE)
    assert [(row[0], tuple(re.findall(r"`(\w+)`", row[1]))) for row in told] == [
        (name, bounds) for name, (_, bounds) in OBJECTIVES.items()
    ]
    assert {row[0]: row[3] for row in told} == {
        name: ", ".join(
            f"{bound} {number:g}"
            for bound, number in shipped()["slo"].get(name, {}).items()
            if bound != "window"
        )
        for name in OBJECTIVES
    }


def test_the_page_names_all_conditions() -> None:
    for condition in get_args(Condition):
        assert f"`{condition}`" in ENTRIES["$.escalation.conditions"][1]


def test_the_page_gives_the_bounds_of_a_wait() -> None:
    assert "{} to {}".format(*WAIT_MS) in ENTRIES["$.roles.*.max_wait_ms"][0]
    assert "{} to {}".format(*LONG_WAIT_MS) in ENTRIES["$.roles.*.allow_long_wait"][1]


def test_the_page_names_the_system_wide_file() -> None:
    assert f"`{ETC}`" in PAGE


EXAMPLES = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_every_example_works(example: dict[str, Any]) -> None:
    if "arms" in example:
        example = {"experiments": [example]}
    changes = {key: value for key, value in example.items() if key != "extends"}
    parse(merge(shipped(), changes))
