"""What ``check-config --online`` says of clouds."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from modelsplit_policy.config.model import CloudPolicy
from modelsplit_proxy.cli.cloud_check import troubles
from modelsplit_sim.cloud import KEY, Cloud

MODELS = {"claude-3-opus": "claude-3-opus-20240229"}


def policy(url: str, **row: Any) -> CloudPolicy:
    given = {"base_url": url, "models": MODELS} | row
    return CloudPolicy.model_validate({"providers": {"a": given}})


async def told(given: CloudPolicy, key: str = KEY) -> list[tuple[str, str]]:
    found = await asyncio.to_thread(lambda: list(troubles(given, {"ANTHROPIC_API_KEY": key})))
    assert KEY not in repr(found)
    return found


async def test_a_provider_that_knows_the_model_and_takes_the_key() -> None:
    async with Cloud() as cloud:
        assert await told(policy(cloud.url)) == []


@pytest.mark.parametrize(
    ("row", "key", "trouble"),
    [
        (
            {"models": {"opus": "claude-9"}},
            KEY,
            ("$.cloud.providers.a.models", "a does not know claude-9, which opus is to be there"),
        ),
        (
            {},
            "sk-wrong",
            ("$.cloud.providers.a", "a does not take the key from $ANTHROPIC_API_KEY (401)"),
        ),
        (
            {},
            "",
            ("$.cloud.providers.a", "there is no key: it is read from $ANTHROPIC_API_KEY"),
        ),
    ],
)
async def test_what_is_wrong(row: dict[str, Any], key: str, trouble: tuple[str, str]) -> None:
    async with Cloud() as cloud:
        assert await told(policy(cloud.url, **row), key) == [trouble]


async def test_a_provider_that_is_not_there() -> None:
    async with Cloud() as cloud:
        url = cloud.url
    [(at, words)] = await told(policy(url))
    assert at == "$.cloud.providers.a"
    assert words == f"cannot be asked at {url}: Connection refused"


async def test_a_file_that_cannot_be_used(tmp_path: Any) -> None:
    [(_, words)] = await told(policy("http://127.0.0.1:1", key_file=str(tmp_path / "none")))
    assert "cannot be read" in words
