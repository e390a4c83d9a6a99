"""What Ollama says of loaded models, shown as far as it goes."""

from __future__ import annotations

import orjson
import pytest

from modelsplit_proxy.watch.residents import residents
from support.harness import running, warm

NONSENSE = {
    "name": "x",
    "size": "big",
    "size_vram": -1,
    "context_length": 2**63,
    "expires_at": 5,
    "host": 5,
}


async def test_what_the_host_says_is_kept_and_read_when_somebody_looks() -> None:
    async with running() as up:
        await warm(up, "qwen3:4b")
        [resident] = residents(up.app.loaded_models.answer)
    assert resident.name == "qwen3:4b"
    assert resident.size is not None
    assert resident.size_vram is not None
    assert resident.expires_at is not None


def test_what_is_nonsense_in_a_row_is_not_told() -> None:
    told = residents(orjson.dumps({"models": [NONSENSE]}))
    assert told == [("x", None, None, None, None, None)]


def test_of_several_hosts_it_is_told_where() -> None:
    rows = [{"name": "x", "host": host} for host in ("big", "b" * 300, 5)]
    told = residents(orjson.dumps({"models": rows}))
    assert [row.host for row in told] == ["big", "b" * 256, None]


@pytest.mark.parametrize("answer", [b"", b"{}", b'{"models":null}', b'{"models":[1]}', b"[]"])
def test_what_is_no_list_of_models_has_none(answer: bytes) -> None:
    assert residents(answer) == []
