"""What a page of the documentation says that a terminal shows: typed, and compared.

A block is lines: ``$ `` and a command, then what it prints. A command that ends in ``&`` serves
until the end of the test; ``<<'END'`` has its lines with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from support.hanging import guarded
from support.process import BARE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

_PROGRAMS: Final = Path(sys.executable).parent
# What is another at each time: moments, ids, lengths of time.
_FORMS: Final = (
    (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d(\.\d+)?)?(Z| [A-Z+-][A-Z0-9]{1,4})?", "MOMENT"),
    (r"\b[0-9a-f]{32}\b|\b[0-9a-f]{8}…", "ID"),
    (r"\bin \d+ (s|min|h|d)\b", "in TIME"),
)


def blocks(page: str, title: str) -> list[str]:
    """The blocks of one section that show a terminal."""
    section = re.search(rf"^## {re.escape(title)}\n(.*?)(^## |\Z)", page, re.DOTALL | re.MULTILINE)
    assert section is not None, title
    fences = re.findall(r"^```\n(.*?)^```$", section[1], re.DOTALL | re.MULTILINE)
    return [fence for fence in fences if fence.startswith("$ ")]


def steps(block: str) -> list[tuple[str, str]]:
    """Each command of a block and what it prints."""
    found = []
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        if "<<'END'" in command:
            text, _, shown = shown.partition("END\n")
            command = f"{command}\n{text}END"
        found.append((command, shown))
    return found


def in_form(text: str) -> str:
    """The same text whenever it was said."""
    for pattern, word in _FORMS:
        text = re.sub(pattern, word, text)
    return text


@dataclass
class Terminal:
    """A folder in which commands are typed. ``instead``: what stands in them for what."""

    folder: Path
    env: dict[str, str]
    instead: Mapping[str, str]
    _serving: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    async def type(self, command: str) -> str:
        """What it prints on stdout. One that ends in ``&`` is waited for until it listens."""
        for word, other in self.instead.items():
            command = command.replace(word, other)
        if command.startswith("export "):
            name, _, value = command.removeprefix("export ").partition("=")
            self.env[name] = value
            return ""
        serves = command.endswith("&")
        child = await asyncio.create_subprocess_exec(
            *("bash", "-c", f"exec env {command[:-1]}" if serves else command),
            cwd=self.folder,
            env={**BARE, "PATH": f"{_PROGRAMS}:{BARE['PATH']}", **self.env},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL if serves else asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE if serves else asyncio.subprocess.DEVNULL,
        )
        if serves:
            self._serving.push_async_callback(_ended, child)
            await _listens(child)
            return ""
        out, _ = await guarded(child.communicate)()
        return out.decode()


@contextlib.asynccontextmanager
async def terminal(
    folder: Path, env: Mapping[str, str], instead: Mapping[str, str]
) -> AsyncIterator[Terminal]:
    """What serves in it has ended at the end."""
    async with contextlib.AsyncExitStack() as serving:
        yield Terminal(folder, dict(env), instead, serving)


async def _listens(child: asyncio.subprocess.Process) -> None:
    assert child.stderr is not None
    said = []
    while line := await child.stderr.readline():
        said.append(line)
        if b" listens on " in line:
            return
    raise AssertionError(b"".join(said).decode())


async def _ended(child: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        child.kill()
    await child.communicate()
