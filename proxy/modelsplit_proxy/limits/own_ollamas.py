"""By what two modelsplits see that they ask the same Ollama: marks that both give it.

An address of this machine is marked by the machine, its boot and its network namespace: two
containers may each have an Ollama at ``127.0.0.1:11434``. The same port is marked by the address
by which others reach this machine, where that is known; any other upstream by its own address.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_NAMESPACE: Final = Path("/proc/self/ns/net")
_ANY_PORT: Final = 9
# A name that takes longer is looked up again later.
_RESOLVED_S: Final = 0.2
_LABEL_MAX: Final = 120
COPY: Final = (
    "another modelsplit has the name {} in the shared Redis, from a copy of this state directory: "
    "this one is {} now, and what was sent before counts twice until its windows end"
)
ONE_OLLAMA: Final = "one Ollama belongs to one modelsplit: each believes that it holds all seats"


@dataclass(frozen=True, slots=True)
class OwnOllamas:
    """Whom one modelsplit asks. ``label``: what people call it, ``marks``: as of ``marks_of``."""

    label: str = ""
    marks: Mapping[str, str] = field(default_factory=dict)

    def text(self, was: str = "") -> str:
        """As others are told. ``was``: the name that it had before; empty: none."""
        told = {"label": self.label, "marks": sorted(self.marks)}
        return json.dumps(told | ({"was": was} if was else {}))

    def rivals(self, texts: Iterable[str]) -> tuple[str, ...]:
        """In words, each of the others that asks an Ollama of ours."""
        found = {
            f"{named} is asked by another modelsplit too, {label}"
            for text in texts
            for label, mark in _told(text)
            if (named := self.marks.get(mark)) is not None
        }
        return tuple(sorted(found))


def copies(texts: Iterable[str], name: str) -> tuple[str, ...]:
    """In words, each of the others that had this name too."""
    return tuple(
        f"{label or 'another modelsplit'} runs with a copy of this state directory: it has another "
        "name now, and what was sent before counts twice until its windows end"
        for label in sorted(label for text in texts for label in _of_copy(text, name))
    )


def _of_copy(text: str, name: str) -> list[str]:
    """The label of who had this name; none of anybody else."""
    try:
        told = json.loads(text)
        return [_label(told)] if told["was"] == name else []
    except (ValueError, KeyError, TypeError):
        return []


def _label(told: dict[str, object]) -> str:
    return "".join(filter(str.isprintable, str(told["label"])))[:_LABEL_MAX]


def _told(text: str) -> list[tuple[str, str]]:
    """Label and mark of each Ollama that another asks; none of what makes no sense."""
    try:
        told = json.loads(text)
        label = _label(told)
        return [(label, str(mark)) for mark in told["marks"]]
    except (ValueError, KeyError, TypeError):
        return []


async def marks_of(
    upstreams: Iterable[tuple[str, int]], boot: str | None, others: str | None
) -> dict[str, str]:
    """By each mark, the upstream that it is of, as ``host:port``.

    ``boot``: which boot of the machine this is; None: nobody knows. ``others``: a host that the
    others reach as well as we do; None: there is none.
    """
    machine = f"{boot}:{_namespace()}" if boot else None
    outside = None if others is None else _own_address(others)
    found: dict[str, str] = {}
    for host, port in upstreams:
        named = f"{host}:{port}"
        for address in await _addresses(host, port):
            if not _is_ours(address):
                found[f"{address}:{port}"] = named
                continue
            if machine is not None:
                found[f"{machine}:{port}"] = named
            if outside is not None:
                found[f"{outside}:{port}"] = named
    return found


def _namespace() -> int:
    """Which network namespace it is; 0 where the system does not say."""
    try:
        return _NAMESPACE.stat().st_ino
    except OSError:
        return 0


async def _addresses(host: str, port: int) -> list[str]:
    """None where the name is not known now."""
    loop = asyncio.get_running_loop()
    try:
        looking = loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        rows = await asyncio.wait_for(looking, _RESOLVED_S)
    except (OSError, TimeoutError):
        return []
    return sorted({str(row[4][0]) for row in rows})


def _is_ours(address: str) -> bool:
    """Whether it is an address of this machine: one can listen there."""
    ip = ipaddress.ip_address(address)
    if ip.is_loopback or ip.is_unspecified:
        return True
    family = socket.AF_INET6 if ip.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as place, contextlib.suppress(OSError):
        place.bind((address, 0))
        return True
    return False


def _own_address(others: str) -> str | None:
    """By which address of ours that host is reached; None: by one that means us alone."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as place:
        # Sends nothing.
        place.connect((others, _ANY_PORT))
        address = str(place.getsockname()[0])
        return None if ipaddress.ip_address(address).is_loopback else address
    return None
