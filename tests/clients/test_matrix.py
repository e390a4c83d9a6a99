"""Each client of the README, its real package, over real sockets: what its user gets to see.

One process per client goes through all cases (``world``); the tests here read what it saw.
"""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest

from clients import page, readme
from clients.catalogue import CLIENTS, TROUBLE, Client, Shows
from modelsplit_sim.text import babble

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clients.conftest import See
    from clients.world import Seen, Sighting
    from modelsplit_policy.failures import Failure

PROMPT = "What next?"
ANSWER = "".join(itertools.islice(babble(PROMPT), 5))
EXPECTED: dict[str, Any] = {
    "chat": ANSWER,
    "responses": ANSWER,
    "tools": {"name": "weather", "arguments": {"city": "some city"}},
    "structured": {"steps": 1, "goal": "some goal"},
    "embed": [384, 384],
}
INSTALLED = {"qwen3:4b", "qwen3:8b", "gemma3:12b", "gpt-oss:20b"}


def clients(*, package: str = "", streams: bool = False) -> list[Any]:
    """All of them, those that are made of a package, or those that stream."""
    return [
        pytest.param(client, id=client.title, marks=needs(client))
        for client in CLIENTS
        if (not package or package in client.packages) and (client.streams or not streams)
    ]


def needs(client: Client) -> Sequence[pytest.MarkDecorator]:
    return [pytest.mark.tools(*client.programs)] if client.programs else []


def cases(part: str) -> list[Any]:
    return [
        pytest.param(client, case, id=f"{client.title}-{case}", marks=needs(client))
        for client in CLIENTS
        for case in getattr(client, part)
    ]


@pytest.mark.parametrize(("client", "case"), cases("calls"))
def test_a_call_works(see: See, client: Client, case: str) -> None:
    seen = see(client).cases[case]
    assert seen.error is None
    if case.endswith("stream") or case == "early":
        assert "".join(seen.said) == ANSWER
        # A terminal does not show how the pieces came.
        assert len(seen.said) >= 5 or client.title == "llm-ollama"
    elif case == "list":
        assert set(seen.said[0]) >= INSTALLED
        assert {"planner", "planner:latest"} & set(seen.said[0])
    elif case == "alias":
        assert seen.said == [client.alias]
    else:
        assert seen.said == [EXPECTED[case]]


@pytest.mark.parametrize(("client", "case"), cases("trouble"))
def test_trouble_is_told(see: See, client: Client, case: str) -> None:
    sighting = see(client)
    seen = sighting.cases[case]
    match client.shows.get(case, Shows.SENTENCE):
        case Shows.SENTENCE:
            message = failure(sighting, case).message
            # As it is, or as JSON writes its quotes, where a client shows the whole body.
            assert message in told(seen) or json.dumps(message)[1:-1] in told(seen)
        case Shows.PHRASE:
            assert failure(sighting, case).phrase in told(seen)
            assert failure(sighting, case).message not in told(seen)
        case Shows.LISTING:
            assert TROUBLE[case] in told(seen)
            assert sighting.asked(TROUBLE[case]) == []
        case Shows.NOTHING:
            assert failure(sighting, case).message
            assert seen.error is None


@pytest.mark.parametrize("client", clients(streams=True))
def test_what_comes_too_late_for_a_status_is_told_inside_the_stream(
    see: See, client: Client
) -> None:
    [record] = see(client).asked(TROUBLE["late"])
    assert record.status == 200
    assert record.failure is not None


def failure(sighting: Sighting, case: str) -> Failure:
    found = sighting.asked(TROUBLE[case])[-1].failure
    assert found is not None
    return found


@pytest.mark.parametrize("client", clients(streams=True))
def test_a_refused_stream_is_told_as_any_refused_call(see: See, client: Client) -> None:
    seen = see(client).cases
    assert page.told(seen["cloud stream"]) == page.told(seen["cloud"])


@pytest.mark.parametrize("client", clients(package="ai"))
def test_the_ai_sdk_never_says_of_a_broken_stream_that_it_stopped(see: See, client: Client) -> None:
    whole, broken = see(client).cases["endings"].said[0]
    assert whole == "stop"
    assert broken in {"other", "error"}


def told(seen: Seen) -> str:
    assert seen.error is not None, f"taken for a whole answer: {seen.said}"
    return seen.error


@pytest.mark.parametrize("client", clients(streams=True))
def test_what_came_before_the_break_is_not_lost(see: See, client: Client) -> None:
    seen = see(client).cases["broken"]
    assert ANSWER.startswith("".join(seen.said))
    assert seen.said or "Words that" in told(seen)


@pytest.mark.parametrize("client", clients())
@pytest.mark.parametrize("model", sorted(set(TROUBLE.values())))
def test_nothing_is_asked_more_often_than_it_should_be(
    see: See, client: Client, model: str
) -> None:
    """The SDKs' retries obey ``x-should-retry: false``; only what is throttled is tried again."""
    cases = [case for case in client.trouble if TROUBLE[case] == model]
    assert len(see(client).asked(model)) == sum(client.asks(case) for case in cases)


@pytest.mark.parametrize("client", clients())
def test_the_readmes_snippet_runs_and_prints_what_it_says(see: See, client: Client) -> None:
    seen = see(client).cases["readme"]
    assert seen.error is None
    [lines] = seen.said
    snippet = readme.snippets()[client.title]
    if snippet.language == "sh":
        assert ANSWER in "".join(lines)
    else:
        assert snippet.printed
        assert lines == snippet.printed


def test_the_readme_has_a_snippet_for_each_client_and_no_other() -> None:
    assert readme.snippets().keys() == {client.title for client in CLIENTS}
