"""docs/cloud.md says of every field of a request what becomes of it, and that is what does.

What the fields are, is held against Ollama's own here, and against those of the official SDKs in
``tests/clients/test_cloud_fields.py``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from modelsplit_policy.failures import Failure
from modelsplit_policy.prices import FREE, Prices
from modelsplit_policy.roles import Roles, RouteRequest
from modelsplit_policy.vocabulary import Provider, Role
from modelsplit_proxy.config import policy_file
from modelsplit_proxy.protocol import web_request
from modelsplit_proxy.protocol.endpoints import ENDPOINTS
from modelsplit_proxy.protocol.routes import Kind, Routes
from modelsplit_proxy.providers.translations import TRANSLATIONS
from support.cloud_fields import BEFORE, TABLES, Builder, Table, named

PAGE: Final = (Path(__file__).parents[1] / "docs" / "cloud.md").read_text(encoding="utf-8")
# Where each table begins.
HEADS: Final = {
    "Ollama's fields": "`/api/chat`, `/api/generate`\n",
    "OpenAI's fields, chat": "`/v1/chat/completions`, and `/v1/completions`, whose",
    "OpenAI's fields, responses": "`/v1/responses`\n",
    "The Messages API's fields": "`/v1/messages`, to a provider of chat completions\n",
}
# What Ollama reads of a request to its own two routes, as its source has it.
OLLAMAS_OWN: Final = {
    *("model", "messages", "stream", "format", "keep_alive", "tools", "options", "think"),
    *("truncate", "shift", "_debug_render_only", "logprobs", "top_logprobs"),
    *("prompt", "suffix", "system", "template", "context", "raw", "images"),
    *("messages.role", "messages.content", "messages.thinking", "messages.images"),
    *("messages.tool_calls", "messages.tool_name", "messages.tool_call_id"),
    *("messages.tool_calls.id", "messages.tool_calls.function.index"),
    *("messages.tool_calls.function.name", "messages.tool_calls.function.arguments"),
    *("tools.type", "tools.items", "tools.function.name", "tools.function.description"),
    "tools.function.parameters",
    *("options.num_keep", "options.seed", "options.num_predict", "options.top_k"),
    *("options.top_p", "options.min_p", "options.typical_p", "options.repeat_last_n"),
    *("options.temperature", "options.repeat_penalty", "options.presence_penalty"),
    *("options.frequency_penalty", "options.stop", "options.num_ctx", "options.num_batch"),
    *("options.num_gpu", "options.main_gpu", "options.use_mmap", "options.num_thread"),
    "options.draft_num_predict",
}


def rows(title: str) -> dict[str, set[str]]:
    """What the page says becomes of each field."""
    text = PAGE.partition("\n## How a request is translated\n")[2].partition("\n## ")[0]
    body = re.split(
        r"\n\n", text.partition(f"\n{HEADS[title]}")[2].lstrip().partition("| field")[2]
    )
    told: dict[str, set[str]] = {}
    for line in body[0].splitlines()[2:]:
        fields, fates, _ = (cell.strip() for cell in line.strip("|").split("|"))
        for field in re.findall(r"`([^`]+)`", fields):
            assert field not in told, f"{field} is told twice"
            told[field] = set(fates.split(", "))
    return told


SAMPLED: Final = [(table, field) for table in TABLES for field in table.samples]


@pytest.mark.parametrize(("table", "field"), SAMPLED, ids=lambda value: str(value)[:40])
def test_what_becomes_of_a_field_is_what_the_page_says(table: Table, field: str) -> None:
    assert table.fates(field) == rows(table.title)[field]


@pytest.mark.parametrize("title", HEADS)
def test_every_field_of_the_page_has_been_tried(title: str) -> None:
    tried = {field for table in TABLES if table.title == title for field in table.samples}
    assert rows(title).keys() - BEFORE == tried


def test_ollamas_fields_are_all_there() -> None:
    assert rows("Ollama's fields").keys() == OLLAMAS_OWN - {"options"}


UNKNOWN: Final = [(table, at, build) for table in TABLES for at, build in table.builders]


@pytest.mark.parametrize(
    ("table", "at", "build"), UNKNOWN, ids=[f"{table.title}: {at}" for table, at, _ in UNKNOWN]
)
@pytest.mark.parametrize("name", ["surprise", "SURPRISE"])
def test_a_field_that_nobody_knows_is_named(
    table: Table, at: str, build: Builder, name: str
) -> None:
    for fates in named(build, table, at, name):
        assert fates == {"named"}


def test_every_route_that_a_cloud_answers_is_on_the_page() -> None:
    text = PAGE.partition("\n## How a request is translated\n")[2].partition("\n## ")[0]
    for label in TRANSLATIONS:
        assert f"`{label}`" in text


def test_every_route_is_told_with_what_may_leave_by_it() -> None:
    """Texts of a request leave by routes that are calls, and by no other."""
    text = PAGE.partition("\n## What Ollama sends out\n")[2].partition("\n## ")[0]
    fates: dict[tuple[str, str], str] = {}
    for line in re.findall(r"^\| [A-Z].*$", text, re.MULTILINE):
        where, _, here = (cell.strip() for cell in line.strip("|").split("|"))
        methods: list[str] = []
        for said, path in re.findall(r"([A-Z]+(?:, [A-Z]+)*) |`(/[^`]*)`", where):
            methods = said.split(", ") if said else methods
            for method in methods if path else ():
                assert (method, path) not in fates
                fates[method, path] = here
    rows = Routes(ENDPOINTS).rows
    assert fates.keys() == {(method, route.label) for method, route in rows}
    for method, route in rows:
        here = fates[method, route.label]
        assert here.startswith("by the rules above") is (route.kind is Kind.INFERENCE)
        assert ("management.deny" in here) is (route.action is not None) or route.label == "/api/me"


def test_the_policy_of_the_page_lets_plain_clients_search(tmp_path: Path) -> None:
    text = PAGE.partition("\n## What Ollama sends out\n")[2].partition("\n## ")[0]
    [example] = re.findall(r"```\n(.*?)```", text, re.DOTALL)
    (tmp_path / "policy.json").write_text(example)
    policy = policy_file.load(tmp_path / "policy.json").policy
    for name in (web_request.SEARCH, web_request.FETCH):
        route = Roles(policy).route(RouteRequest(name))
        assert not isinstance(route, Failure)
        assert (route.role, route.provider) == (Role.CLOUD, Provider.CLOUD)
        assert Prices(policy).of(name, Provider.CLOUD) == FREE
