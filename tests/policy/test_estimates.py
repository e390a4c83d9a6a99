"""What a call can take at most: the number it names, else the policy's guess."""

from __future__ import annotations

from typing import Any

import pytest

from modelsplit_policy.config.model import ModelPolicy
from modelsplit_policy.config.parser import parse
from modelsplit_policy.estimates import DEFAULT_OUTPUT_TOKENS, Estimates
from modelsplit_policy.prices import Price
from modelsplit_policy.roles import Candidate
from modelsplit_policy.vocabulary import Role
from modelsplit_proxy.config.policy_file import merge, shipped
from support.bodies import fields_of
from support.endpoints import facts

OPUS = Price(input=15.0, output=75.0)
CANDIDATE = Candidate("claude-3-opus", 30.0)
CHAT = "/api/chat"


def estimates(**changes: Any) -> Estimates:
    return Estimates(parse(merge(shipped(), changes)))


def tokens(fields: dict[str, Any], label: str = CHAT, **changes: Any) -> int:
    return estimates(**changes).output_tokens(
        Role.CLOUD, CANDIDATE.model, facts(label), fields_of(fields)
    )


def cloud(**row: Any) -> dict[str, Any]:
    return {"roles": {"CLOUD": row}}


@pytest.mark.parametrize(
    "fields",
    [
        {"options": {"num_predict": 100}},
        {"Options": {"num_predict": 100.0}},
        {"max_tokens": 100},
        {"max_completion_tokens": 100},
        {"MAX_OUTPUT_TOKENS": 100},
        {"max_token\u017f": 100},
        {"max_to\u212aens": 100},
        {"option\u017f": {"num_predict": 100}},
    ],
)
def test_the_number_that_a_request_names(fields: dict[str, Any]) -> None:
    assert tokens(fields) == 100


def test_of_several_numbers_the_largest_counts() -> None:
    assert tokens({"max_tokens": 10, "max_completion_tokens": 300}) == 300


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"options": {"num_predict": -1}},
        {"options": {"num_predict": 0}},
        {"options": {"num_predict": float("nan")}},
        {"options": {"num_predict": True}},
        {"options": "many"},
        {"max_tokens": "many"},
        {"max_tokens": None},
    ],
)
def test_no_number_and_no_end_are_reckoned_with_the_models_number(fields: dict[str, Any]) -> None:
    assert tokens(fields) == DEFAULT_OUTPUT_TOKENS
    assert tokens(fields, models={"claude-3-opus": {"max_output_tokens": 7}}) == 7


def test_a_number_beyond_reason_is_no_smaller_for_it() -> None:
    assert tokens({"max_tokens": 10**30}) == 10**9


def test_what_a_role_fills_in_and_cuts_is_what_is_sent() -> None:
    assert tokens({}, **cloud(num_predict=50, max_num_predict=80)) == 50
    assert tokens({"max_tokens": 1000}, **cloud(max_num_predict=80)) == 80
    assert tokens({"max_tokens": -1}, **cloud(num_predict=50, max_num_predict=80)) == 80
    assert tokens({}, **cloud(max_num_predict=80)) == 80


def test_an_embedding_has_no_answer() -> None:
    assert tokens({"max_tokens": 9}, "/v1/embeddings") == 0


def test_dollars_are_the_body_and_the_answer_at_the_models_price() -> None:
    usd = estimates().usd(
        OPUS, Role.CLOUD, CANDIDATE, facts(CHAT), fields_of({"max_tokens": 1000}), 2000
    )
    assert usd == pytest.approx((2000 * 15 + 1000 * 75) / 1e6)


def test_a_price_nobody_knows_is_not_nothing() -> None:
    assert estimates().usd(None, Role.CLOUD, CANDIDATE, facts(CHAT), fields_of({}), 10) is None


def test_an_hour_of_computing_is_bounded_by_the_timeouts() -> None:
    power = Price(usd_per_hour=3600.0)
    bounded = estimates().usd(
        power, Role.HEAVY, Candidate("m", 60.0), facts(CHAT), fields_of({}), 10
    )
    assert bounded == 60.0 + 120.0
    assert (
        estimates().usd(power, Role.CHAT, Candidate("m", None), facts(CHAT), fields_of({}), 10)
        == 600.0
    )


def test_the_guess_is_the_policys_default() -> None:
    assert ModelPolicy().max_output_tokens == DEFAULT_OUTPUT_TOKENS
