"""The APIs that a provider may have."""

from __future__ import annotations

from typing import get_args

import pytest

from modelsplit_policy.config.model import CloudProviderPolicy
from modelsplit_proxy.providers.dialects import DIALECTS
from modelsplit_proxy.providers.events import BrokenAnswerError, StreamEvent
from modelsplit_proxy.providers.question import Question, Terms
from modelsplit_proxy.providers.translations import TRANSLATIONS

ROW = CloudProviderPolicy.model_validate({"models": {"m": None}, "betas": ["one"]})


def test_every_dialect_of_the_policy_has_its_row() -> None:
    known = get_args(CloudProviderPolicy.model_fields["dialect"].annotation)
    assert set(known) == set(DIALECTS)
    assert {dialect.path for dialect in DIALECTS.values()} <= set(TRANSLATIONS)


def test_heads() -> None:
    assert DIALECTS["anthropic"].headers(ROW, "key", "two") == {
        "x-api-key": "key",
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "one,two",
    }
    assert DIALECTS["openai"].headers(ROW, "key", "two") == {"Authorization": "Bearer key"}


def test_the_messages_api_is_what_it_is() -> None:
    own = DIALECTS["anthropic"]
    body = {"model": "m"}
    assert own.ask(Question(body, ("seed",)), Terms("m", 9)) == (body, ("seed",))
    assert own.message(body) is body
    assert list(own.events().read(StreamEvent(b"", body, b""))) == [body]
    assert list(own.events().read(StreamEvent(b"", {}, b"[DONE]"))) == []
    with pytest.raises(BrokenAnswerError):
        list(own.events().read(StreamEvent(b"", {}, b"{half")))
