"""The pictures in the README: the page and ``modelsplit top``, of a made-up quarter of an hour.

``cd tests && ../.venv/bin/python -m support.pictures`` makes them anew; it needs chromium, node
and npm.
"""

from __future__ import annotations

import asyncio
import io
import random
import tempfile
import time
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.terminal_theme import TerminalTheme

from modelsplit_policy.roles import Candidate, Route
from modelsplit_policy.slo.heartbeat import Heartbeat
from modelsplit_policy.vocabulary import Context, Provider, Role, RouteReason
from modelsplit_proxy.cli import top
from modelsplit_proxy.config.settings import Address
from modelsplit_proxy.protocol.stream_end import Usage
from modelsplit_proxy.records import slo_store
from modelsplit_proxy.records.record import CallRecord
from modelsplit_proxy.records.recorder import Recorder
from modelsplit_sim.config import SimConfig
from support import browsers
from support.harness import Running, running
from support.records import PLANNER, QUEUE_FULL, answered, turned_away
from support.stores import opened

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / "docs" / "pictures"
PAGE: Final = "page.png"
TOP: Final = "top.svg"
SPAN_S: Final = 15 * 60
WIDTH, HEIGHT = 112, 34
JSON = {"Content-Type": "application/json"}
EXECUTOR = Route(
    role=Role.EXECUTOR,
    context=Context.EXECUTOR,
    provider=Provider.LOCAL,
    requested_model="executor",
    candidates=(Candidate("qwen3:8b", 60.0),),
    reason=RouteReason.ALIAS,
)
HEAVY = Route(
    role=Role.HEAVY,
    context=Context.EXECUTOR,
    provider=Provider.LOCAL,
    requested_model="heavy",
    candidates=(Candidate("gemma3:12b", 120.0),),
    reason=RouteReason.ALIAS,
)
# Of each kind of call: seconds from one to the next, in line, and at the model; tokens.
KINDS: Final = (
    (PLANNER, 6.0, 0.2, 1.9, 60),
    (EXECUTOR, 9.0, 1.4, 5.0, 180),
    (HEAVY, 40.0, 2.5, 14.0, 420),
)
DARK = TerminalTheme(
    (22, 27, 34),
    (201, 209, 217),
    [
        *((22, 27, 34), (248, 81, 73), (63, 185, 80), (210, 153, 34)),
        *((88, 166, 255), (188, 140, 255), (57, 197, 207), (201, 209, 217)),
    ],
)
# Who waits in the picture waits for as long as it takes.
PATIENT: Final = {"max_wait_ms": 600_000, "allow_long_wait": True, "timeout_ms": None}
OVERLAY: Final[dict[str, Any]] = {
    "global": {"parallel": 4},
    "roles": dict.fromkeys(("PLANNER", "EXECUTOR", "HEAVY"), PATIENT),
}
# Where it would be, on a host that was installed as the documents say.
POLICY: Final = "/etc/modelsplit/model-policy.json"
# Without the fonts that rich would have a browser fetch: whoever looks uses their own.
SVG: Final = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"
 aria-label="modelsplit top">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
font-size: {char_height}px; line-height: {line_height}px; white-space: pre }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect width="{terminal_width}" height="{terminal_height}"/></clipPath>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></g></svg>
"""


def past(state: Path, now: float) -> None:
    """A state file with the calls of the last quarter of an hour, and a heartbeat a minute."""
    chance = random.Random(17)
    with opened(state) as store:
        recorder = Recorder(store)
        for route, every_s, wait_s, model_s, tokens in KINDS:
            at = now - SPAN_S
            while (at := at + chance.uniform(0.4, 1.6) * every_s) < now - 30:
                recorder.call_ended(call(route, at, wait_s, model_s, tokens, chance))
        recorder.catch_up()
        for minute in range(SPAN_S // 60):
            at_us = round((now - SPAN_S + 60 * minute) * 1e6)
            beat = Heartbeat(at_us, "run", lag_p99_us=round(1000 * chance.uniform(0.8, 2.4)))
            store.submit(partial(slo_store.keep_heartbeat, beat=beat)).result()


def call(
    route: Route, at: float, wait_s: float, model_s: float, tokens: int, chance: random.Random
) -> CallRecord:
    """One that ended long ago; one in fifty found the line full."""
    request_id = f"{chance.getrandbits(64):016x}"
    if chance.random() < 0.02:
        return turned_away(QUEUE_FULL, started_wall=at, request_id=request_id)
    record = answered(route, started_wall=at, request_id=request_id)
    attempt = record.attempts[0]
    attempt.seated = attempt.dispatched = 100.0 + wait_s * chance.lognormvariate(0, 0.7)
    attempt.first_byte = attempt.seated + chance.uniform(0.2, 0.5)
    eval_s = model_s * chance.uniform(0.6, 1.5)
    attempt.ended = record.ended = attempt.first_byte + eval_s
    attempt.usage = Usage(
        prompt_tokens=400, output_tokens=tokens, eval_s=eval_s, finish_reason="stop"
    )
    return record


async def present(up: Running, stack: AsyncExitStack) -> None:
    """Who runs and waits now, a job, and a call that failed."""
    async with up.client() as client, up.admin() as admin:
        headers = {"X-LLM-Job-Id": "build-17"}
        call = {"model": "planner", "prompt": "x", "stream": False, "options": {"num_predict": 2}}
        assert (await client.request("POST", "/api/generate", call, headers)).status == 200
        tool = {"name": "grep", "duration_ms": 80.5, "ok": True}
        assert (await admin.request("POST", "/jobs/build-17/tool", tool, JSON)).status == 200
        body = {"model": "nobody:1b", "prompt": "x", "stream": False}
        assert (await client.request("POST", "/api/generate", body)).status == 404
    for model in ("planner", "executor", "executor", "planner", "executor", "heavy", "executor"):
        client = await stack.enter_async_context(up.client())
        await client.ask("POST", "/api/generate", {"model": model, "prompt": "x"})
    await up.until(lambda: up.seats()[0] >= 3 and up.seats()[1] >= 2)
    streams = up.app.live.calls
    await up.until(lambda: any((call.tokens or 0) >= 20 for call in streams()))


def draw(admin: Address, path: Path) -> None:
    screen = top.Screen(admin)
    screen.refresh()
    console = Console(
        record=True,
        width=WIDTH,
        height=HEIGHT,
        file=io.StringIO(),
        force_terminal=True,
        color_system="standard",
        highlight=False,
    )
    console.print(screen.draw(WIDTH, HEIGHT))
    svg = console.export_svg(title="modelsplit top", theme=DARK, code_format=SVG, unique_id="top")
    path.write_text(svg)


async def make(folder: Path) -> None:
    """Both pictures. Raises install.Unavailable where the browser's driver cannot be had."""
    driver = await asyncio.to_thread(browsers.modules)
    config = SimConfig(tokens=100_000, token_rate=24, num_parallel=2, max_loaded=3)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as state:
        await asyncio.to_thread(past, Path(state), time.time())
        async with (
            AsyncExitStack() as stack,
            running(config, OVERLAY, source=POLICY, state=Path(state)) as up,
        ):
            await present(up, stack)
            await asyncio.to_thread(draw, Address("127.0.0.1", up.admin_port), folder / TOP)
            url = f"http://127.0.0.1:{up.admin_port}/"
            await browsers.driven("picture.mjs", driver, url, folder / PAGE)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    asyncio.run(make(FOLDER))
