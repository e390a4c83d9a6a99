"""Where built things are kept, and building the load side from its Go source."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).resolve().parent


def cache() -> Path:
    """For what is built and installed: outside of the source tree, kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "modelsplit-bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def go(*words: str, env: dict[str, str] | None = None, where: Path | None = None) -> None:
    """Run the Go tool; its complaints go to stderr."""
    program = shutil.which("go")
    if program is None:
        raise SystemExit("run_speed: Go 1.22 or newer is needed to build the load generator")
    subprocess.run([program, *words], check=True, env={**os.environ, **(env or {})}, cwd=where)


def build(into: Path) -> tuple[Path, Path]:
    """The mock and the load generator, built into a folder."""
    go("build", "-trimpath", "-buildvcs=false", "-o", f"{into}/", "./...", where=SOURCE)
    return into / "mock", into / "load"
