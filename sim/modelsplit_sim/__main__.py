"""`python -m modelsplit_sim`: the stand-in as a process."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import signal
import sys
from typing import TYPE_CHECKING, Any

import uvloop

from .config import SimConfig
from .control import Control
from .models import DEFAULT_MODELS, ModelSpec, model
from .server import Sim
from .virtual_traffic import read_scenario

if TYPE_CHECKING:
    from collections.abc import Callable

    from .host_shape import HostShape

_OPTIONS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "load-ms": ("load_ms", float),
    "rate": ("token_rate", float),
    "tokens": ("tokens", int),
    "size": ("size", int),
    "blob": ("blob", str),
    "answer": ("answer", str),
    "capabilities": ("capabilities", lambda text: tuple(text.split("+"))),
}


def parse_model(text: str) -> ModelSpec:
    """`qwen3:4b` or `qwen3:4b:rate=20,load-ms=500`; a default model keeps its size and details.

    Options: load-ms rate tokens size blob answer capabilities (joined with +).
    """
    name, _, tail = text.rpartition(":")
    if "=" not in tail:
        name, tail = text, ""
    known = {spec.name: spec for spec in DEFAULT_MODELS}
    fields: dict[str, Any] = {}
    for part in filter(None, tail.split(",")):
        key, _, value = part.partition("=")
        if key not in _OPTIONS:
            raise argparse.ArgumentTypeError(f"unknown model option {key!r} in {text!r}")
        field, convert = _OPTIONS[key]
        fields[field] = convert(value)
    return dataclasses.replace(known.get(name) or model(name), **fields)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="modelsplit_sim", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 for a free one")
    parser.add_argument("--control-port", type=int, default=0, help="0 for a free one")
    parser.add_argument("--model", type=parse_model, action="append", help=parse_model.__doc__)
    parser.add_argument("--load-ms", type=float, default=0.0)
    parser.add_argument("--token-rate", type=float, default=0.0, help="tokens per second, 0: none")
    parser.add_argument("--shared-compute", action="store_true", help="the rate is for all runs")
    parser.add_argument("--contention", type=float, default=1.0, help="how running calls share")
    parser.add_argument("--free", type=int, default=1, help="calls at once that slow nobody")
    parser.add_argument("--scenario", help="the host of a scenario file, or of a shipped one")
    parser.add_argument("--prefill-ms", type=float, default=0.0, help="per prompt token")
    parser.add_argument("--tokens", type=int, default=32, help="length of unlimited answers")
    parser.add_argument("--num-parallel", type=int, default=1)
    parser.add_argument("--max-queue", type=int, default=512)
    parser.add_argument("--max-loaded", type=int, default=1)
    parser.add_argument("--num-ctx", type=int, default=4096)
    parser.add_argument("--gpu-share", type=float, default=0.0, help="of a model, as it says")
    parser.add_argument("--keep-alive-s", type=float, default=300.0)
    parser.add_argument("--log-size", type=int, default=10_000, help="calls remembered")
    return parser


def configure(options: argparse.Namespace) -> SimConfig:
    fields = vars(options).copy()
    for name in ("port", "control_port"):
        del fields[name]
    if (scenario := fields.pop("scenario")) is not None:
        fields |= host_fields(read_scenario(scenario).host)
    fields["models"] = tuple(fields.pop("model") or DEFAULT_MODELS)
    return SimConfig(**fields)


def host_fields(shape: HostShape) -> dict[str, Any]:
    """What a scenario's host is for a stand-in in real time; nobody else is on its machine."""
    return {
        "token_rate": 1000 / shape.ms_per_token,
        "shared_compute": True,
        "contention": shape.contention,
        "free": shape.free,
        "num_parallel": shape.num_parallel,
        "max_loaded": shape.max_loaded,
        "load_ms": shape.load_ms,
        "gpu_share": shape.gpu_share or 0.0,
        # The prompts that were recorded have about twenty tokens.
        "prefill_ms": shape.prompt_ms / 20,
    }


async def serve(options: argparse.Namespace) -> None:
    """Run until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    sim = Sim(configure(options))
    control = Control(sim)
    await sim.start(options.port)
    control_port = await control.start(options.control_port)
    sys.stdout.write(json.dumps({"port": sim.port, "control_port": control_port}) + "\n")
    sys.stdout.flush()
    await ended.wait()
    await sim.stop()
    await control.stop()


def main() -> None:
    options = arguments().parse_args()
    try:
        uvloop.run(serve(options))
    except OSError as error:
        sys.exit(f"modelsplit_sim: {error}; --port and --control-port choose others")


if __name__ == "__main__":
    main()
