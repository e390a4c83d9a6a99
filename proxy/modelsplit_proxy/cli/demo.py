"""``modelsplit demo``: the whole story in a minute, without an Ollama.

Starts the stand-in Ollama and the proxy in front of it, in one process, and sends a little
mixed traffic over real sockets: planners and executors by alias, a heavy call, a chat, a
planner whose first model fails, and more planners at once than have seats. The story is on
stdout, whole and in order; the log is on stderr.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import aiohttp
import uvloop

from modelsplit_proxy.app import App, PortBusyError, address_of, bind
from modelsplit_proxy.cli import serve
from modelsplit_proxy.config import policy_file
from modelsplit_proxy.config.settings import Address
from modelsplit_proxy.records.request_log import text
from modelsplit_proxy.records.values import log_fields
from modelsplit_proxy.runtime import process_log
from modelsplit_proxy.runtime.streams import OutputError
from modelsplit_sim.config import SimConfig
from modelsplit_sim.faults import Kind
from modelsplit_sim.server import Sim

if TYPE_CHECKING:
    from modelsplit_proxy.config.settings import Settings
    from modelsplit_proxy.records.record import CallRecord

_STAND_IN: Final = SimConfig(
    load_ms=400, token_rate=40, tokens=24, num_parallel=2, max_loaded=4, prefill_ms=0.5
)
_CONTEXT: Final = """
Try it yourself (Ctrl-C ends the demo):
  curl -i http://{address}/api/generate -d '{{"model":"planner","prompt":"hi","stream":false}}'
  curl -N http://{address}/api/generate -d '{{"model":"executor","prompt":"why did it fail?"}}'
  curl http://{admin}/stats
  OLLAMA_HOST=http://{address} ollama list
"""


def run(settings: Settings, *, once: bool) -> int:
    """Run the demo; ``once``: leave when the traffic is through."""
    with tempfile.TemporaryDirectory(prefix="modelsplit-demo-") as state:
        uvloop.run(_demo(replace(settings, state=Path(state)), once=once))
    return 0


async def _demo(settings: Settings, *, once: bool) -> None:
    process_log.set_up(sys.stderr, as_json=False)
    stop, cut = serve.signals()
    async with Sim(_STAND_IN) as sim:
        app = App(
            replace(
                settings,
                upstream=Address("127.0.0.1", sim.port),
                listen=_free(settings.listen),
                admin=_free(settings.admin),
            ),
            policy_file.load(None),
            sink=_discard,
            json_log=True,
        )
        await app.start()
        _tell(f"stand-in Ollama on http://127.0.0.1:{sim.port}")
        _tell(f"modelsplit on      http://{app.address}")
        for wanted, got in ((settings.listen, app.address), (settings.admin, app.admin_address)):
            if wanted.port and got != wanted:
                _tell(f"  ({wanted} is taken, so it is {got} here)")
        _tell("")
        app.ended.listen("demo", _print_call)
        await _traffic(sim, f"http://{app.address}")
        if not once:
            _tell(_CONTEXT.format(address=app.address, admin=app.admin_address))
            await stop.wait()
        await app.stop(cut)


async def _traffic(sim: Sim, base: str) -> None:
    async with aiohttp.ClientSession(base) as session:
        _tell("a planner, an executor and a chat, one after the other (first calls load):")
        await _call(session, "planner")
        await _call(session, "executor")
        await _call(session, "gemma3:12b")
        _tell("\nfive planners and an executor at once; a fresh start learns how many at once pay:")
        await asyncio.gather(
            *(_call(session, "planner") for _ in range(5)), _call(session, "executor")
        )
        _tell("\nthe planner's model fails once; the fallback answers:")
        sim.faults.add(Kind.STATUS, status=500, body="the runner died", model="qwen3:4b", times=1)
        await _call(session, "planner")
        _tell("\na role nobody knows, and a planner that will not wait:")
        await _call(session, "planner", role="BOSS")
        busy = [_call(session, "planner") for _ in range(2)]
        await asyncio.gather(*busy, _call(session, "planner", max_wait_ms=50))


async def _call(
    session: aiohttp.ClientSession, model: str, role: str = "", max_wait_ms: int | None = None
) -> None:
    headers = {"X-LLM-Role": role} if role else {}
    if max_wait_ms is not None:
        headers["X-LLM-Max-Wait-Ms"] = str(max_wait_ms)
    body = {"model": model, "prompt": "What should be done next?"}
    async with session.post("/api/generate", json=body, headers=headers) as response:
        await response.read()


def _print_call(record: CallRecord) -> None:
    _tell("  " + text(log_fields(record)))


def _tell(line: str) -> None:
    """One line of the story, all of which is on stdout, in the order in which it happens."""
    # The call is not to suffer; what could not be written is told at the end.
    with suppress(OSError, OutputError):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def _discard(data: bytes) -> None:
    del data


def _free(wanted: Address) -> Address:
    """``wanted`` if nobody has it, else the same host and whatever port is free."""
    try:
        with bind(wanted):
            return wanted
    except PortBusyError:
        with bind(Address(wanted.host, 0)) as spare:
            return address_of(spare)
