"""How an optional package is added to the installation that runs, and how that is upgraded.

The command names the packages themselves and the environment that runs: a bare ``pip install``
may be another environment's, and a name of ours would be looked up in an index.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import requires
from importlib.util import find_spec
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_NAME: Final = "modelsplit"
# What uv and pipx keep in each environment that they make for a program.
_UV: Final = "uv-receipt.toml"
_PIPX: Final = "pipx_metadata.json"
# How a receipt of uv's says where a package came from, where that is no index.
_SOURCES: Final = ("path", "directory", "editable", "url")


def adding(extra: str, prefix: str = sys.prefix, python: str = sys.executable) -> str:
    """The command that adds what this extra of ours brings, as it is typed.

    ``prefix``: the environment; ``python``: its interpreter.
    """
    packages = brought_by(extra, requires(_NAME) or ())
    sudo = "" if os.access(prefix, os.W_OK) else "sudo "
    return sudo + join(_command(packages, Path(prefix), python))


def upgrading(prefix: str = sys.prefix, python: str = sys.executable) -> str:
    """The command that puts a later version in the place of this one, as it is typed."""
    sudo = "" if os.access(prefix, os.W_OK) else "sudo "
    if (Path(prefix) / _UV).is_file():
        return f"{sudo}uv tool upgrade {_NAME}"
    if (Path(prefix) / _PIPX).is_file():
        return f"{sudo}pipx upgrade {Path(prefix).name}"
    return sudo + join([*_pip(python), "install", "--upgrade", "WHEEL"])


def brought_by(extra: str, requirements: Iterable[str]) -> list[str]:
    """The packages with their ranges, of requirements as a distribution's metadata has them."""
    parted = (requirement.partition(";") for requirement in requirements)
    return [
        package.strip()
        for package, _, marker in parted
        if f'"{extra}"' in marker or f"'{extra}'" in marker
    ]


def _command(packages: list[str], prefix: Path, python: str) -> list[str]:
    if (receipt := prefix / _UV).is_file():
        return ["uv", "tool", "install", *_with(packages), *_with_before(receipt)]
    if (prefix / _PIPX).is_file():
        return ["pipx", "inject", prefix.name, *packages]
    return [*_pip(python), "install", *packages]


def _pip(python: str) -> list[str]:
    """Its own, or somebody else's where it has none."""
    return ["pip", "--python", python] if find_spec("pip") is None else [python, "-m", "pip"]


def _with(packages: Iterable[str]) -> list[str]:
    return [word for package in packages for word in ("--with", package)]


def _with_before(receipt: Path) -> Iterator[str]:
    """What uv has to be told again, since it forgets it otherwise; the program itself last."""
    # A fifth of a megabyte, and most processes have what they need.
    import tomllib  # noqa: PLC0415

    tool = tomllib.loads(receipt.read_text(encoding="utf-8"))["tool"]
    ours = _NAME
    for package in tool["requirements"]:
        source = next((package[key] for key in _SOURCES if key in package), None)
        if package["name"] == _NAME:
            ours = source or _NAME
        else:
            yield from _with([source or package["name"] + package.get("specifier", "")])
    yield ours
