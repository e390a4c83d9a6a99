"""A client that leaves in the middle of a cloud's answer. It runs in real time: nothing is due."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelsplit_sim.cloud import Script
from support.clouds import with_a_cloud

if TYPE_CHECKING:
    from pathlib import Path

NATIVE = "/api/chat"
CALL = {"model": "cloud", "messages": [{"role": "user", "content": "hi"}]}
PATIENT = {"roles": {"CLOUD": {"timeout_ms": 86_400_000}}}


async def test_a_client_that_leaves_makes_the_provider_stop(tmp_path: Path) -> None:
    async with with_a_cloud(tmp_path, overlay=PATIENT) as (up, cloud):
        cloud.scripts.append(Script(text="a long answer indeed, and longer", fault="stall"))
        async with up.client() as client:
            await client.ask("POST", NATIVE, CALL)
            await cloud.wait_for(lambda cloud: bool(cloud.calls and cloud.calls[0].first_byte_at))
        await cloud.wait_for(lambda cloud: cloud.calls[0].left_at is not None)
        [record] = await up.calls.wait()
        assert record.status == 499
        assert record.usage.prompt_tokens in {None, 12}
