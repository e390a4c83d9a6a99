"""The two dialects, of which a client speaks one."""

from __future__ import annotations

import pytest

from modelsplit_client import Client, Dialect
from support.clients import DIALECTS


def test_they_are_named_by_words() -> None:
    assert tuple(Dialect) == DIALECTS


@pytest.mark.parametrize("dialect", [*DIALECTS, *Dialect])
def test_a_client_is_told_which(dialect: str) -> None:
    Client(dialect=dialect).close()


def test_another_is_an_error() -> None:
    with pytest.raises(ValueError, match="anthropic"):
        Client(dialect="anthropic")
