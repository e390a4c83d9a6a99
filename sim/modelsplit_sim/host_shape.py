"""The figures of one Ollama host: its machine, its settings, and each of its models.

Calls that run share the machine. ``free`` runners at once slow nobody; beyond that n of them
take ``1 + contention * (n - free)`` times as long each. Within one runner calls are batched:
b of them at once take ``1 + batching * (b - 1)`` times as long each, so 0 is a machine that
reads its weights once for all of them, and 1 one that gains nothing. Where ``batching`` is None
nobody has looked: calls of one model then count like calls of so many runners.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

# Ollama loads a further model only where it takes at most this share of the memory that is free.
FREE_SHARE: Final = 0.8


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Something else on the machine: busy and idle in turn, for these means, exponentially.

    While it is busy everything takes ``slowdown`` times as long.
    """

    busy_s: float
    idle_s: float
    slowdown: float


@dataclass(frozen=True, slots=True)
class ModelShape:
    """One model on this host, alone. ``prompt_ms``: of any prompt, besides its tokens.

    ``gb``: what it takes of the memory, its contexts included; 0: nothing worth counting.
    ``slot_gb``: what one more context would add to it. ``blob``: the name of its file; of models
    that are idle the one whose is first makes room, and, before any that has one, of those without
    the one used longest ago.
    """

    ms_per_token: float
    load_ms: float
    prompt_ms_per_token: float = 0.0
    prompt_ms: float = 0.0
    gb: float = 0.0
    slot_gb: float = 0.0
    blob: str = ""


@dataclass(frozen=True, slots=True)
class HostShape:
    """What a host can do. ``spread``: the standard deviation of a call's pace, relative.

    ``drift``: that of the machine's own, from one hour to another: each run draws its own.

    The figures of a model are those of a model without any of its own in ``models`` (by
    canonical name). ``vram_gb`` None: whatever is loaded fits. ``offload``: how many times as
    long a model takes for what of it does not fit. ``keep_alive_s``: how long an idle model stays
    loaded. ``crash_every_s``: a runner dies so often on average while it computes; None: never.
    ``mute_while_loading``: what is loaded it tells when it has loaded. ``gpu_share``: as much of
    a loaded model it says is in a GPU's memory; None: what of it fits ``vram_gb``, or, where that
    is not known, nothing is said.
    """

    name: str
    ms_per_token: float = 14.7
    prompt_ms: float = 58.0
    prompt_ms_per_token: float = 0.0
    load_ms: float = 1700.0
    contention: float = 1.0
    free: int = 1
    batching: float | None = None
    num_parallel: int = 1
    max_loaded: int = 3
    max_queue: int = 512
    keep_alive_s: float = float("inf")
    vram_gb: float | None = None
    offload: float = 8.0
    crash_every_s: float | None = None
    mute_while_loading: bool = True
    gpu_share: float | None = None
    spread: float = 0.08
    drift: float = 0.0
    neighbour: Neighbour | None = None
    models: Mapping[str, ModelShape] = field(default_factory=dict)

    def slowdown(self, running: int) -> float:
        """How much longer each of so many at once takes than it would alone."""
        return 1 + self.contention * max(0, running - self.free)

    def of(self, model: str) -> ModelShape:
        """The figures of one model, by canonical name."""
        own = self.models.get(model)
        if own is not None:
            return own
        return ModelShape(self.ms_per_token, self.load_ms, self.prompt_ms_per_token, self.prompt_ms)

    def offloaded(self, gb: float) -> float:
        """How many times as long a model of this size takes for not fitting whole; 1: it fits."""
        if self.vram_gb is None or gb <= self.vram_gb:
            return 1.0
        return 1 + (self.offload - 1) * (1 - self.vram_gb / gb)

    def share_on_gpu(self, gb: float) -> float | None:
        """As much of a model of this size it says is in a GPU's memory; None: it does not say."""
        if self.gpu_share is not None or self.vram_gb is None:
            return self.gpu_share
        return min(1.0, self.vram_gb / gb) if gb else 1.0

    def with_slots(self, slots: int) -> HostShape:
        """The same with so many calls at once in each runner: every model takes that much more."""
        more = slots - self.num_parallel
        models = {
            name: replace(model, gb=max(0.0, model.gb + more * model.slot_gb))
            for name, model in self.models.items()
        }
        return replace(self, num_parallel=slots, models=models)

    def has_room(self, gb: float, loaded: int, loaded_gb: float) -> bool:
        """Whether a model of this size may be loaded beside so many others, of that size."""
        if not loaded:
            return True
        if loaded >= self.max_loaded:
            return False
        return self.vram_gb is None or gb <= FREE_SHARE * (self.vram_gb - loaded_gb)
