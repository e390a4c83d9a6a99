"""A real browser, driven by the scripts in ``tests/browser``."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any, Final

from clients import install

FOLDER: Final = Path(__file__).parents[1] / "browser"
PROGRAMS: Final = ("chromium", "node", "npm")


def modules() -> Path:
    """What drives it. Blocks; raises install.Unavailable where that cannot be had."""
    return install.node_packages("browser", FOLDER / "package.json", FOLDER / "package-lock.json")


async def driven(script: str, driver: Path, url: str, *words: str | Path) -> Any:
    """What a script says of the page at ``url``, as values. ``driver``: as of ``modules``."""
    chromium, node = shutil.which("chromium"), shutil.which("node")
    assert chromium is not None
    assert node is not None
    child = await asyncio.create_subprocess_exec(
        *(node, FOLDER / script, driver, chromium, url, *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, talk = await child.communicate()
    assert child.returncode == 0, talk.decode()
    return json.loads(out)
