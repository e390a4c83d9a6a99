"""The catalogue: which models the stand-in says it has."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .clock import wall_ns

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# 2026-11-23T00:28:56Z, fixed so that lists sorted by it are the same in every run.
_MODIFIED_NS = 1_795_393_736 * 10**9
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_NAME = re.compile(rf"(?:{_PART}(?::[0-9]+)?/)?(?:{_PART}/)?{_PART}(?::{_PART})?")


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model name.

    `blob` is what a runner loads: models with the same blob share one runner (observed).
    `load_ms`, `token_rate` (tokens/s) and `tokens` (default length) override SimConfig's.
    `answer`, when not empty, is the text every generation gives, cut at the token limit.
    """

    name: str
    blob: str = ""
    size: int = 253_113_579
    family: str = "gemma3"
    parameter_size: str = "268.10M"
    quantization_level: str = "Q4_K_M"
    context_length: int = 32_768
    embedding_length: int = 640
    capabilities: tuple[str, ...] = ("completion",)
    load_ms: float | None = None
    token_rate: float | None = None
    tokens: int | None = None
    answer: str = ""
    modified_ns: int = _MODIFIED_NS

    @property
    def key(self) -> str:
        return self.digest

    @property
    def digest(self) -> str:
        """64 hex digits: the manifest's digest, the same for aliases of one blob."""
        return hashlib.sha256((self.blob or self.name).encode()).hexdigest()

    @property
    def embeds(self) -> bool:
        return "embedding" in self.capabilities


def model(name: str) -> ModelSpec:
    """A spec by name alone: a name with "embed" in it answers vectors, any other does not."""
    if "embed" in name:
        return ModelSpec(name, capabilities=("embedding",), family="bert", embedding_length=384)
    return ModelSpec(name)


_TALKS = ("completion", "tools", "thinking")
DEFAULT_MODELS: tuple[ModelSpec, ...] = (
    ModelSpec("qwen3:4b", "", 2_497_293_931, "qwen3", "4.0B", "Q4_K_M", 262_144, 2560, _TALKS),
    ModelSpec("qwen3:8b", "", 5_225_388_164, "qwen3", "8.2B", "Q4_K_M", 40_960, 4096, _TALKS),
    ModelSpec("gemma3:12b", "", 8_149_190_253, "gemma3", "12.2B", "Q4_K_M", 131_072, 3840),
    ModelSpec("gpt-oss:20b", "", 13_793_441_244, "gptoss", "20.9B", "MXFP4", 131_072, 2880, _TALKS),
)


def full_name(name: str) -> str:
    """`qwen3` means `qwen3:latest` (observed: GET /v1/models/nosuch answers nosuch:latest)."""
    return name if ":" in name.rsplit("/", 1)[-1] else f"{name}:latest"


def is_valid_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


class Catalogue:
    """The models by name; names compare without case."""

    def __init__(self, specs: Iterable[ModelSpec]) -> None:
        self._specs = {full_name(spec.name).lower(): spec for spec in specs}

    def __iter__(self) -> Iterator[ModelSpec]:
        return iter(self._specs.values())

    def find(self, name: str) -> ModelSpec | None:
        return self._specs.get(full_name(name).lower())

    def add(self, spec: ModelSpec) -> None:
        self._specs[full_name(spec.name).lower()] = spec

    def alias(self, source: ModelSpec, name: str) -> None:
        """What /api/copy does: another name for the same blob."""
        self.add(replace(source, name=name, blob=source.blob or source.name, modified_ns=wall_ns()))

    def remove(self, name: str) -> None:
        self._specs.pop(full_name(name).lower(), None)
