"""Thoughts that a client keeps for the provider."""

from __future__ import annotations

import pytest

from modelsplit_proxy.providers.proven_thoughts import block_of, seal_of, seal_of_redacted


def test_thoughts_come_back_as_they_went() -> None:
    assert block_of("hm", seal_of("c2ln")) == {
        "type": "thinking",
        "thinking": "hm",
        "signature": "c2ln",
    }
    assert block_of("", seal_of_redacted("eHl6")) == {"type": "redacted_thinking", "data": "eHl6"}


@pytest.mark.parametrize("sealed", [None, 7, "", "hm", "gAAAAABo", ["messages-signature:x"]])
def test_thoughts_of_others_are_none(sealed: object) -> None:
    assert block_of("hm", sealed) is None
