"""The wheel as users get it, built and installed into an environment of its own."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel in it; what it depends on is that of the tests."""

    wheel: Path
    prefix: Path

    @property
    def python(self) -> Path:
        return self.prefix / "bin" / "python"

    @property
    def wrapper(self) -> tuple[str, ...]:
        """For ``spawned`` and ``serving``: this environment's Python instead of the tests'."""
        return ("/bin/sh", "-c", 'shift; exec "$0" "$@"', str(self.python))

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The installed command, away from the tree and from the tester's environment."""
        return subprocess.run(
            [self.prefix / "bin" / "modelsplit", *words],
            cwd=self.prefix,
            env={"PATH": "/usr/bin:/bin", "HOME": str(self.prefix)},
            capture_output=True,
            text=True,
            check=False,
        )


def build(target: str, source: Path, folder: Path) -> Path:
    """A ``wheel`` or an ``sdist`` of that tree, in ``folder``."""
    words = ["-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
    subprocess.run([sys.executable, *words], cwd=source, check=True, capture_output=True)
    [built] = folder.iterdir()
    return built


def install(wheel: Path, prefix: Path, *, nothing: bool = False) -> Installed:
    """Into a new environment, without asking any index. ``nothing``: only make the environment."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", prefix], check=True)
    installed = Installed(wheel, prefix)
    [own] = prefix.glob("lib/python3*/site-packages")
    # Packages that are there, but no .pth file of the tests' own: it would add the tree.
    (own / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    if not nothing:
        pip(installed, "install", "--no-deps", "--no-index", str(wheel))
    return installed


def pip(installed: Installed, *words: str) -> None:
    command = [sys.executable, "-m", "pip", "--python", str(installed.python), *words, "--quiet"]
    subprocess.run(command, check=True, capture_output=True)
