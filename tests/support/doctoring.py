"""Where ``modelsplit doctor`` looks, as a test sets it up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelsplit_proxy.cli.doctor_findings import Answer, Finding, Look, Unseen
from modelsplit_proxy.config import policy_file
from modelsplit_proxy.config.settings import read_settings

NOON = 1_795_000_000.0
GB = 10**9


@dataclass
class SetClock:
    """A clock that says what it was set to."""

    at: float = NOON

    def now(self) -> float:
        return self.at

    def wall(self) -> float:
        return self.at


def look(folder: Path, **changes: Any) -> Look:
    """A healthy set-up: Ollama with every model of the policy, nobody else, no proxy running.

    ``settings``: flags; ``policy``: over the shipped one; ``programs``: what a program prints, by
    its name; anything else as a field of ``Look``.
    """
    proc = folder / "proc"
    (proc / "net").mkdir(parents=True, exist_ok=True)
    flags = {"state": str(folder / "state"), **changes.pop("settings", {})}
    programs: Mapping[str, str] = changes.pop("programs", {})
    fields: dict[str, Any] = {
        "settings": read_settings(flags, {}),
        "environ": {},
        "policy": policy_file.load(None).policy,
        "stats": None,
        "state": folder / "state",
        "version": answer({"version": "0.33.0"}),
        "installed": models({"qwen3:4b": 3, "qwen3:8b": 5, "gemma3:12b": 8, "gpt-oss:20b": 14}),
        "loaded": answer({"models": []}),
        "clock": SetClock(),
        "run": lambda command: _output(programs, command),
        "proc": proc,
    }
    return Look(**fields | changes)


def answer(body: Any, via: str = "") -> Answer:
    return Answer(200, via, body)


def models(sizes: Mapping[str, float], **fields: Any) -> Answer:
    """One of Ollama's lists; sizes in GB."""
    rows = [{"name": name, "size": int(size * GB), **fields} for name, size in sizes.items()]
    return answer({"models": rows})


def causes(found: Sequence[Finding | Unseen]) -> list[str]:
    """What was found, without steps; of what was not seen, why."""
    return [item.cause if isinstance(item, Finding) else f"unseen: {item.why}" for item in found]


def process(proc: Path, pid: int, name: str, *inodes: int, **environ: str) -> None:
    """A process with these sockets open."""
    folder = proc / str(pid)
    (folder / "fd").mkdir(parents=True)
    for number, inode in enumerate(inodes):
        (folder / "fd" / str(number)).symlink_to(f"socket:[{inode}]")
    (folder / "fd" / "99").symlink_to("/dev/null")
    (folder / "comm").write_text(f"{name}\n")
    (folder / "environ").write_text("".join(f"{key}={value}\0" for key, value in environ.items()))


def table(proc: Path, *rows: tuple[str, str, str, int, int]) -> None:
    """``/proc/net/tcp``: local, remote, state, user and inode of each socket."""
    head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid"
    lines = [
        f"   {number}: {local} {remote} {state} 00000000:00000000 00:00000000 00000000 "
        f" {uid}        0 {inode} 1 0000000000000000 100 0 0 10 0"
        for number, (local, remote, state, uid, inode) in enumerate(rows)
    ]
    (proc / "net" / "tcp").write_text("\n".join([head, *lines, ""]))


def _output(programs: Mapping[str, str], command: Sequence[str]) -> str | None:
    return programs.get(command[0])
