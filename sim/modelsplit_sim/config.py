"""What a stand-in is told to be."""

from __future__ import annotations

from dataclasses import dataclass

from .models import DEFAULT_MODELS, ModelSpec, model


@dataclass(frozen=True, slots=True)
class SimConfig:
    """Settings of one stand-in; times in the unit the name says.

    token_rate: tokens per second of one generation, 0 for as fast as the reader takes them.
    shared_compute: token_rate is the total over all running generations, each of n gets rate/n
    (observed on a CPU host: two streams run at half speed each). contention and free then say
    how they share: up to free at once run at the full rate, n beyond at 1 / (1 + contention
    (n - free)) of it.
    prefill_ms: per prompt token. tokens: length of an answer whose request sets no limit.
    num_parallel: slots per runner. max_queue: places in the queue of requests that need a load.
    gpu_share: as much of a loaded model it says is in a GPU's memory (/api/ps, size_vram).
    leak_abandoned: keep the socket of a client that left while queued for a load (observed).
    log_size: how many calls, and bytes of each call's body, the log keeps.
    """

    models: tuple[ModelSpec | str, ...] = DEFAULT_MODELS
    load_ms: float = 0.0
    token_rate: float = 0.0
    shared_compute: bool = False
    contention: float = 1.0
    free: int = 1
    prefill_ms: float = 0.0
    tokens: int = 32
    num_parallel: int = 1
    max_queue: int = 512
    max_loaded: int = 1
    keep_alive_s: float = 300.0
    num_ctx: int = 4096
    gpu_share: float = 0.0
    version: str = "0.33.0-rc2"
    hostname: str = "vm"
    leak_abandoned: bool = True
    log_size: int = 10_000
    log_body_bytes: int = 65_536

    @property
    def specs(self) -> tuple[ModelSpec, ...]:
        return tuple(model(item) if isinstance(item, str) else item for item in self.models)

    def load_s(self, spec: ModelSpec) -> float:
        return (self.load_ms if spec.load_ms is None else spec.load_ms) / 1000

    def rate(self, spec: ModelSpec) -> float:
        return self.token_rate if spec.token_rate is None else spec.token_rate

    def length(self, spec: ModelSpec) -> int:
        return self.tokens if spec.tokens is None else spec.tokens
