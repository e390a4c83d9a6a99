"""What is shipped for simulations: workloads, and the hosts they are meant for, as JSON files."""

from __future__ import annotations

import json
from importlib import resources
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .host_file import host_of
from .replay.workload import workload_of

if TYPE_CHECKING:
    from .host_shape import HostShape
    from .replay.workload import Workload

_HOSTS: Final = "hosts"
_WORKLOADS: Final = "workloads"


class UnknownNameError(ValueError):
    """Nothing of that name is shipped. The text says what is."""


class Shipped(NamedTuple):
    """A workload with the host it is meant for."""

    workload: Workload
    host: HostShape


def workloads() -> list[str]:
    """The names of all workloads, in order."""
    return _names(_WORKLOADS)


def hosts() -> list[str]:
    """The names of all hosts, in order."""
    return _names(_HOSTS)


def workload(name: str) -> Shipped:
    """One of them, with its host. UnknownNameError: there is none of that name."""
    raw = _read(_WORKLOADS, name)
    return Shipped(workload_of(raw, name), host(raw.pop("host")))


def host(name: str) -> HostShape:
    """One of them. UnknownNameError: there is none of that name."""
    return host_of(_read(_HOSTS, name))


def _names(folder: str) -> list[str]:
    files = resources.files("modelsplit_sim") / folder
    names = (file.name for file in files.iterdir())
    return sorted(name.removesuffix(".json") for name in names if name.endswith(".json"))


def _read(folder: str, name: str) -> dict[str, Any]:
    if name not in _names(folder):
        known = ", ".join(_names(folder))
        raise UnknownNameError(f'nothing is shipped as "{name[:40]}"; {folder}: {known}')
    file = resources.files("modelsplit_sim") / folder / f"{name}.json"
    values: dict[str, Any] = json.loads(file.read_bytes())
    return values
