"""The example of each code in docs/errors.md is what a client is told, word for word.

But for addresses and moments, which are told as those of an Ollama at its usual place.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson
import pytest

from modelsplit_policy.failures import ErrorCode
from modelsplit_proxy.limits.client_keys import Keyring
from modelsplit_sim.cloud import KEY, Script
from modelsplit_sim.config import SimConfig
from modelsplit_sim.faults import Kind
from support.clouds import approve, cloud_policy, with_a_cloud
from support.harness import in_front_of, running, warm
from support.scripted import response, scripted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from support.harness import Running

pytestmark = pytest.mark.flowing_time

PAGE: Final = (Path(__file__).parents[2] / "docs" / "errors.md").read_text(encoding="utf-8")
ROUTE: Final = "/api/generate"
SIM: Final = SimConfig(tokens=4, num_parallel=8, max_loaded=4)
SCHEMA: Final = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
SHORT: Final = {"X-LLM-Timeout-Ms": "500", "X-LLM-No-Fallback": "1"}
ALONE: Final = {"X-LLM-No-Fallback": "1"}

Fields = dict[str, Any]


async def ask(
    up: Running, model: str = "planner", headers: dict[str, str] | None = None, **more: Any
) -> Fields:
    """What the client is told last."""
    body = {"model": model, "prompt": "hi", "stream": False} | more
    async with up.client() as client:
        answer = await client.request("POST", ROUTE, body, headers)
    told: Fields = orjson.loads(answer.body.splitlines()[-1])
    return told


async def bad_request(_: Path) -> Fields:
    async with running(SIM) as up:
        return await ask(up, headers={"X-LLM-Role": "boss"})


async def unauthorized(_: Path) -> Fields:
    async with running(SIM, keyring=Keyring([])) as up:
        return await ask(up)


async def forbidden(_: Path) -> Fields:
    async with running(SIM) as up:
        return await ask(up, "gpt-oss:120b-cloud")


async def escalation_denied(_: Path) -> Fields:
    async with running(SIM) as up:
        return await ask(up, "executor", {"X-LLM-Escalate": "boredom"})


async def not_approved(_: Path) -> Fields:
    async with running(SIM) as up:
        return await ask(up, "cloud")


async def not_found(_: Path) -> Fields:
    async with running(SIM) as up:
        return await ask(up, "qwen3:14b")


async def too_large(_: Path) -> Fields:
    async with running(SIM, max_body_bytes=1024 * 1024) as up:
        return await ask(up, prompt="x" * 1024 * 1024)


async def rate_limited(_: Path) -> Fields:
    async with running(SIM, {"clients": {"rate_per_s": 0.01, "burst": 1}}) as up:
        await ask(up)
        return await ask(up)


async def budget_exhausted(_: Path) -> Fields:
    budget = {"name": "heavy-20b", "models": ["gpt-oss:20b"], "calls": 1, "window": "1d"}
    async with running(SIM, {"budgets": [budget]}) as up:
        await ask(up, "gpt-oss:20b")
        return await ask(up, "gpt-oss:20b")


async def overload(_: Path) -> Fields:
    async with running(SIM, {"roles": {"PLANNER": {"max_queue": 0, "max_concurrent": 1}}}) as up:
        up.sim.faults.add(Kind.HANG, path=ROUTE)
        async with up.client() as busy:
            await busy.ask("POST", ROUTE, {"model": "planner", "prompt": "hi"})
            await up.until(lambda: up.seats() == (1, 0))
            return await ask(up)


async def unreachable_local(_: Path) -> Fields:
    async with running(SIM) as up:
        await up.sim.stop()
        return await ask(up)


async def unreachable_cloud(state: Path) -> Fields:
    policy, environ = cloud_policy("http://127.0.0.1:9"), {"ANTHROPIC_API_KEY": KEY}
    async with running(SIM, policy, state=state, environ=environ) as up:
        approve(state)
        return await ask(up, "cloud")


async def upstream_local(_: Path) -> Fields:
    async with scripted(response(b"null")) as ollama, in_front_of(ollama.port) as up:
        return await ask(up, headers=ALONE)


async def upstream_cloud(state: Path) -> Fields:
    async with with_a_cloud(state, key="") as (up, _):
        return await ask(up, "cloud")


async def broken_local(_: Path) -> Fields:
    async with running(SIM) as up:
        up.sim.faults.add(Kind.CUT_FIN, path=ROUTE, after=2)
        return await ask(up, stream=True)


async def broken_cloud(state: Path) -> Fields:
    async with with_a_cloud(state) as (up, cloud):
        cloud.scripts.append(Script(text="a long answer indeed, and longer", fault="cut"))
        return await ask(up, "cloud", stream=True)


async def timeout_local(_: Path) -> Fields:
    async with running(SIM) as up:
        await warm(up, "qwen3:4b")
        up.sim.faults.add(Kind.HANG, path=ROUTE)
        return await ask(up, headers=SHORT)


async def timeout_cloud(state: Path) -> Fields:
    async with with_a_cloud(state) as (up, cloud):
        cloud.scripts.append(Script(text="a long answer", fault="late"))
        return await ask(up, "cloud", SHORT)


async def schema_invalid(_: Path) -> Fields:
    async with running(SIM) as up:
        up.sim.faults.add(Kind.BAD_SCHEMA, path=ROUTE)
        return await ask(up, headers=ALONE, format=SCHEMA)


async def loop(_: Path) -> Fields:
    async with running(SIM) as up:
        return await ask(up, headers={"Via": "1.1 modelsplit"})


async def client_gone(_: Path) -> Fields:
    async with running(SIM) as up:
        up.sim.faults.add(Kind.HANG, path=ROUTE)
        async with up.client() as client:
            await client.ask("POST", ROUTE, {"model": "planner", "prompt": "hi"})
            await up.until(lambda: up.seats() == (1, 0))
        [record] = await up.calls.wait(1)
        async with up.admin() as admin:
            told: Fields = (await admin.request("GET", f"/requests/{record.request_id}")).json
        return told


async def internal(_: Path) -> Fields:
    async with running(SIM) as up:
        up.app.roles.plain = None  # type: ignore[method-assign, assignment]
        return await ask(up)


ERRORS: Final[dict[ErrorCode, Callable[[Path], Awaitable[Fields]]]] = {
    ErrorCode.BAD_REQUEST: bad_request,
    ErrorCode.UNAUTHORIZED: unauthorized,
    ErrorCode.FORBIDDEN: forbidden,
    ErrorCode.ESCALATION_DENIED: escalation_denied,
    ErrorCode.BUDGET_NOT_APPROVED: not_approved,
    ErrorCode.MODEL_NOT_FOUND: not_found,
    ErrorCode.REQUEST_TOO_LARGE: too_large,
    ErrorCode.RATE_LIMITED: rate_limited,
    ErrorCode.BUDGET_EXHAUSTED: budget_exhausted,
    ErrorCode.OVERLOAD_THROTTLED: overload,
    ErrorCode.UNREACHABLE_LOCAL: unreachable_local,
    ErrorCode.UNREACHABLE_CLOUD: unreachable_cloud,
    ErrorCode.UPSTREAM_LOCAL: upstream_local,
    ErrorCode.UPSTREAM_CLOUD: upstream_cloud,
    ErrorCode.STREAM_BROKEN_LOCAL: broken_local,
    ErrorCode.STREAM_BROKEN_CLOUD: broken_cloud,
    ErrorCode.TIMEOUT_LOCAL: timeout_local,
    ErrorCode.TIMEOUT_CLOUD: timeout_cloud,
    ErrorCode.SCHEMA_INVALID: schema_invalid,
    ErrorCode.LOOP: loop,
    ErrorCode.CLIENT_GONE: client_gone,
    ErrorCode.INTERNAL: internal,
}


def shown(fields: Fields) -> str:
    """As the page shows it."""
    text = fields["error"]
    for pattern, usual in (
        (r"127\.0\.0\.1:\d+", "127.0.0.1:11434"),
        (r" --admin 127\.0\.0\.1:11434", ""),
        (r"OLLAMA_HOST=(?:http://)?127\.0\.0\.1:11434 ", ""),
        (r"in \d+ (?:h|min), at [-\d: ]+ UTC", "in 24 h, at 2026-11-24 03:14 UTC"),
        (r"retry in \d+ s", "retry in 2 s"),
    ):
        text = re.sub(pattern, usual, text)
    said, code, reason = (
        orjson.dumps(value).decode() for value in (text, fields["error_code"], fields["reason"])
    )
    return f'{{"error":{said},"error_code":{code}, …,"reason":{reason}}}'


@pytest.mark.parametrize("code", ErrorCode)
async def test_the_example_of_a_code_is_what_a_client_is_told(
    code: ErrorCode, tmp_path: Path
) -> None:
    fields = await ERRORS[code](tmp_path)
    assert fields["error_code"] == code
    [section] = [part for part in PAGE.split("\n### ") if part.startswith(f"`{code}`")]
    assert re.findall(r"^    (\{.*)$", section, re.MULTILINE) == [shown(fields)]
