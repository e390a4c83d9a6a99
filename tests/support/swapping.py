"""A small host on which two models do not fit beside each other, and calls that need both."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

MODELS = {
    name: {"ms_per_token": 10, "load_ms": 4000, "gb": 5}
    for name in ("qwen3:4b", "qwen3:8b", "gemma3:12b")
}
HOST = {"name": "small", "vram_gb": 8, "contention": 0.5, "batching": 0.2, "models": MODELS}


def call(number: int) -> dict[str, Any]:
    """A planner every six seconds, an executor in place of every fourth."""
    executor = number % 4 == 3
    return {
        "trace": 2,
        "arrived": 1000.0 + 6 * number,
        "route": "/api/chat",
        "llm_role": "EXECUTOR" if executor else "PLANNER",
        "requested_model": "executor" if executor else "planner",
        "llm_model": "qwen3:8b" if executor else "qwen3:4b",
        "outcome": "ok",
        "prompt_tokens": 10,
        "output_tokens": 160 if executor else 60,
        "call_e2e_latency_ms": 1000.0,
        "attempts": [],
    }


def write_swapping(folder: Path, calls: int = 120) -> list[str]:
    """Write the host and the trace; the flags of ``modelsplit simulate`` that name them."""
    host, trace = folder / "host.json", folder / "trace.jsonl"
    host.write_text(json.dumps(HOST))
    trace.write_text("".join(f"{json.dumps(call(number))}\n" for number in range(calls)))
    return ["--trace", str(trace), "--host-model", str(host)]
