"""A proxy with a trouble behind each model's name, and one client let loose on it.

Each client gets a proxy of its own, so that what it asked can be counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from clients import install, readme
from clients.catalogue import Language
from modelsplit_sim.config import SimConfig
from modelsplit_sim.faults import Kind
from modelsplit_sim.models import DEFAULT_MODELS, ModelSpec
from support.hanging import guarded
from support.harness import running

if TYPE_CHECKING:
    from clients.catalogue import Client
    from clients.install import Places
    from modelsplit_proxy.records.record import CallRecord
    from support.harness import Overlay, Running

FOLDER: Final = Path(__file__).parent
EXAMPLES: Final = readme.ROOT / "examples"
BREAKS: Final = ("breaks:1b", "breaks:2b")
SLOW: Final = (ModelSpec("slow:1b", load_ms=400), ModelSpec("late:1b", load_ms=400))
SIM: Final = SimConfig(
    tokens=5,
    num_parallel=8,
    max_loaded=8,
    models=(*DEFAULT_MODELS, "all-minilm-embed:latest", "spent:1b", *BREAKS, *SLOW),
)
POLICY: Final[Overlay] = {
    # One seat, held by a call that never ends, and no line to stand in.
    "roles": {
        "HEAVY": {"max_concurrent": 1, "max_queue": 0},
        "CHAT": {"early_headers_after_ms": 100},
    },
    "budgets": [
        {"name": "spent", "models": ["spent:1b"], "calls": 1, "window": "1h"},
        {"name": "cloud", "provider": "CLOUD", "calls": 9, "window": "1d", "usd": 5.0},
    ],
    "load_timeout_ms": 600_000,
}
_AT_ONCE: Final = 3


@dataclass(frozen=True)
class Seen:
    """What one case gave: the pieces said before the end, and the error it ended in."""

    said: list[Any]
    error: str | None


@dataclass(frozen=True)
class Sighting:
    """All that one client's user saw, and the records of the calls that it made."""

    cases: Mapping[str, Seen]
    records: tuple[CallRecord, ...]

    def asked(self, model: str) -> list[CallRecord]:
        """The calls that named it, with or without its tag."""
        names = {model, f"{model}:latest"}
        return [record for record in self.records if record.requested_model in names]


@contextlib.asynccontextmanager
async def troubled() -> AsyncIterator[Running]:
    """Trouble behind each name.

    ``heavy`` is full, the budget of ``spent:1b`` is used up, ``cloud`` has no approval,
    ``breaks:…`` dies after two tokens. ``slow:1b`` takes longer to load than a client is made
    to wait for its head, and so does ``late:1b``, which then dies before its first token.
    """
    async with running(SIM, POLICY) as up:
        up.sim.faults.add(Kind.HANG, model="gemma3:12b", path="/api/generate")
        for model in BREAKS:
            up.sim.faults.add(Kind.CUT_RST, model=model, after=2)
        up.sim.faults.add(Kind.CUT_RST, model="late:1b", after=0)
        async with up.client() as first:
            await first.request("POST", "/api/generate", {"model": "spent:1b", "prompt": "hi"})
        await up.calls.wait()
        up.calls.records.clear()
        async with up.client() as busy:
            await busy.ask("POST", "/api/generate", {"model": "heavy", "prompt": "hold"})
            await up.until(lambda: up.seats() == (1, 0))
            yield up


async def watch(clients: Iterable[Client], places: Places) -> dict[str, Sighting]:
    """Run the scripts of ``clients``, some at a time; what each saw, by its title."""
    turn = asyncio.Semaphore(_AT_ONCE)

    async def one(client: Client) -> Sighting:
        async with turn, troubled() as up:
            return await _run(client, places, up)

    chosen = list(clients)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(client)) for client in chosen]
    return {client.title: task.result() for client, task in zip(chosen, tasks, strict=True)}


async def _run(client: Client, places: Places, up: Running) -> Sighting:
    with tempfile.TemporaryDirectory() as name:
        room = Path(name)
        out = room / "seen.json"
        program, script = _prepared(client, places, room)
        child = await asyncio.create_subprocess_exec(
            *(program, script, out),
            cwd=room,
            env=_environment(client, program, up.url, room),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            talk, _ = await guarded(child.communicate)()
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
        assert child.returncode == 0, f"{client.title}: {talk.decode()}"
        found = orjson.loads(out.read_bytes())
    # The client may be gone before its last call is recorded; the call that holds a seat stays.
    await up.until(lambda: up.seats() == (1, 0))
    cases = {case: Seen(seen["said"], seen["error"]) for case, seen in found.items()}
    return Sighting(cases, tuple(up.calls.records))


def _prepared(client: Client, places: Places, room: Path) -> tuple[Path, Path]:
    """The interpreter and the script; a Node script must stand beside its packages."""
    script = FOLDER / client.script
    if client.language is Language.PYTHON:
        return places.found[Language.PYTHON], script
    for source in (*script.parent.glob("*.mjs"), *EXAMPLES.glob("*.mjs")):
        shutil.copy(source, room)
    (room / "node_modules").symlink_to(places.found[Language.NODE])
    return install.node(), room / script.name


def _environment(client: Client, program: Path, url: str, room: Path) -> dict[str, str]:
    """Nothing of the tester's own but where programs are."""
    snippet = readme.snippets()[client.title]
    return {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "LANG": "C.UTF-8",
        "HOME": str(room),
        "PYTHONPATH": f"{FOLDER.parent}:{readme.ROOT / 'client'}",
        # LiteLLM would fetch its price list from the network when it is imported.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "MODELSPLIT_URL": url,
        "MODELSPLIT_README": snippet.code.replace(readme.ADDRESS, url),
        "MODELSPLIT_README_IS": snippet.language,
    }
