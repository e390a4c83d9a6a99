"""What ``modelsplit doctor`` finds of the policy's clouds."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from modelsplit_policy.config.parser import parse
from modelsplit_proxy.cli.doctor_cloud import clouds
from modelsplit_proxy.cli.doctor_findings import Finding, Unseen
from modelsplit_sim.cloud import KEY, Cloud
from support.clouds import cloud_policy
from support.doctoring import look
from support.policies import document

if TYPE_CHECKING:
    from pathlib import Path


async def found(folder: Path, url: str, key: str, **more: Any) -> list[Finding | Unseen]:
    given = parse(document((("cloud",), cloud_policy(url)["cloud"])))
    here = look(folder, policy=given, environ={"ANTHROPIC_API_KEY": key}, **more)
    return await asyncio.to_thread(lambda: [*clouds(here)])


async def test_a_cloud_that_answers_is_fine(tmp_path: Path) -> None:
    async with Cloud() as cloud:
        assert await found(tmp_path, cloud.url, KEY) == []


async def test_what_is_wrong_comes_with_what_mends_it(tmp_path: Path) -> None:
    async with Cloud() as cloud:
        [finding] = await found(tmp_path, cloud.url, "sk-wrong")
    assert isinstance(finding, Finding)
    assert finding.check == "cloud"
    assert "anthropic does not take the key from $ANTHROPIC_API_KEY" in finding.cause
    assert finding.step.startswith("read -rs ANTHROPIC_API_KEY ")


async def test_a_key_that_only_the_running_proxy_has_is_not_seen(tmp_path: Path) -> None:
    async with Cloud() as cloud:
        [unseen] = await found(tmp_path, cloud.url, "", stats={})
        [finding] = await found(tmp_path, cloud.url, "")
        assert cloud.calls == []
    assert isinstance(unseen, Unseen)
    assert unseen.why == (
        "$.cloud.providers.anthropic: the running proxy has a key, this command has none to ask "
        "with"
    )
    assert isinstance(finding, Finding)


@pytest.mark.parametrize("kind", ["causes", "notes"])
async def test_a_key_that_the_running_proxy_has_not_either_is_found(
    kind: str, tmp_path: Path
) -> None:
    cause = (
        "anthropic has no key, so none of its models can be asked: $ANTHROPIC_API_KEY is not set"
    )
    health: dict[str, Any] = {"causes": [], "notes": []}
    health[kind] = [{"text": cause, "next": "read -rs …"}]
    async with Cloud() as cloud:
        [finding] = await found(tmp_path, cloud.url, "", stats={"health": health})
    assert isinstance(finding, Finding)
    assert finding.cause == cause


def test_without_a_cloud_nobody_is_asked(tmp_path: Path) -> None:
    assert [*clouds(look(tmp_path))] == []
    assert [*clouds(look(tmp_path, policy=None))] == []
