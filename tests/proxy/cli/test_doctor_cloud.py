"""What ``modelsplit doctor`` finds of the policy's clouds."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

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
        "$.cloud.providers.anthropic: there is no key: it is read from $ANTHROPIC_API_KEY, where "
        "this command has none"
    )
    assert isinstance(finding, Finding)


def test_without_a_cloud_nobody_is_asked(tmp_path: Path) -> None:
    assert [*clouds(look(tmp_path))] == []
    assert [*clouds(look(tmp_path, policy=None))] == []
