"""What the benches share: where things are, quantiles, tables, the machine in words."""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelsplit_policy import admission
from modelsplit_policy.config.parser import parse
from modelsplit_proxy.records import trace as lines
from modelsplit_sim.replay import trace

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Sequence

    from modelsplit_policy.config.model import Policy
    from modelsplit_sim.replay.recorded import Recorded

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ROOT / "config" / "model-policy.json"

# The machine in virtual time and the byte-by-byte client are the tests' own. A path of the
# caller's (PYTHONPATH, for trying other constants) stays before it.
sys.path.append(str(ROOT / "tests"))

_TOLD = ("aiohttp", "httptools", "orjson", "pydantic", "uvloop")


def quantile(values: Iterable[float], share: float) -> float:
    """The value at ``share`` of the sorted values, by nearest rank; nan for none."""
    ordered = sorted(values)
    if not ordered:
        return float("nan")
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; floats come as text already."""
    lines = [list(head), ["---"] * len(head), *([str(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def options(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Every bench prints Markdown, or JSON when asked."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return parser.parse_args()


def show(found: dict[str, Any], text: str, *, as_json: bool) -> None:
    sys.stdout.write((json.dumps(found, indent=1, default=str) if as_json else text) + "\n")


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``over`` upon ``base``, key by key, as a policy that extends another is read."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        both = isinstance(below, dict) and isinstance(value, dict)
        result[key] = merged(below, value) if both else value  # type: ignore[arg-type]
    return result


def policy(over: dict[str, Any] | None = None) -> Policy:
    """The shipped policy with ``over`` upon it."""
    document = json.loads(SHIPPED.read_bytes())
    document.pop("$schema", None)
    return parse(merged(document, over or {}))


def admission_of(over: dict[str, Any] | None = None) -> admission.Admission:
    return admission.from_policy(policy(over))


def write_policy(path: Path, over: dict[str, Any] | None = None) -> Path:
    """A policy file over the shipped default; without ``over`` it changes nothing."""
    path.write_text(json.dumps({"extends": "default", **(over or {})}))
    return path


def traced(raw: bytes) -> list[Recorded]:
    """The calls of an exported trace."""
    return trace.read((n, lines.read(line)) for n, line in enumerate(raw.splitlines(), 1))


def machine() -> str:
    """Cores, Python and versions, one line each."""
    used = ", ".join(f"{name} {metadata.version(name)}" for name in _TOLD)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    kernel = ".".join(platform.release().split(".")[:2])
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    return "\n".join(
        (
            f"- {cores} cores, {_processor()}; load average when it began {load}",
            f"- {platform.system()} {kernel} {platform.machine()}",
            f"- {platform.python_implementation()} {platform.python_version()}; {used}",
            f"- modelsplit {metadata.version('modelsplit')}",
        )
    )


def _processor() -> str:
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or "unknown processor")
