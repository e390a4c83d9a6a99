"""A host's figures as JSON: read from a file, and written into one."""

from __future__ import annotations

import math
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, Final

from modelsplit_policy.model_names import canonical

from .host_shape import HostShape, ModelShape, Neighbour

if TYPE_CHECKING:
    from collections.abc import Mapping

_COUNTS: Final = frozenset({"num_parallel", "max_loaded", "max_queue", "free"})
_TEXTS: Final = frozenset({"name", "blob"})
_FLAGS: Final = frozenset({"mute_while_loading"})
_NULLABLE: Final = frozenset({"batching", "vram_gb", "crash_every_s", "neighbour", "gpu_share"})
_PARTS: Final = frozenset({"neighbour", "models"})
# These are of nought and above; of the others a nought would mean a machine without any time.
_MAY_BE_ZERO: Final = frozenset(
    {
        *("prompt_ms", "prompt_ms_per_token", "load_ms", "contention", "batching", "spread", "gb"),
        *("slot_gb", "drift", "gpu_share"),
        *("keep_alive_s", "max_queue"),
    }
)


class HostError(ValueError):
    """What is no description of a host, and why."""


def host_of(raw: Mapping[str, Any]) -> HostShape:
    """The host that a JSON object describes; HostError says which key is wrong, and how."""
    _known(HostShape, raw, "")
    values: dict[str, Any] = {
        key: _value(key, value, "") for key, value in raw.items() if key not in _PARTS
    }
    neighbour = raw.get("neighbour")
    if neighbour is not None:
        values["neighbour"] = _part(Neighbour, neighbour, "neighbour")
    models = raw.get("models", {})
    if not isinstance(models, dict):
        raise HostError("models is no object")
    values["models"] = {
        canonical(name): _part(ModelShape, row, f"models.{name}") for name, row in models.items()
    }
    if "name" not in values:
        raise HostError("name is missing")
    return HostShape(**values)


def host_fields(shape: HostShape) -> dict[str, Any]:
    """The JSON object of which ``host_of`` makes this host."""
    values = {field.name: getattr(shape, field.name) for field in fields(shape)}
    if math.isinf(shape.keep_alive_s):
        del values["keep_alive_s"]
    values["neighbour"] = None if shape.neighbour is None else asdict(shape.neighbour)
    values["models"] = {name: asdict(model) for name, model in shape.models.items()}
    return values


def _part(kind: type, raw: Any, where: str) -> Any:
    if not isinstance(raw, dict):
        raise HostError(f"{where} is no object")
    _known(kind, raw, f"{where}.")
    try:
        return kind(**{key: _value(key, value, f"{where}.") for key, value in raw.items()})
    except TypeError as error:
        missing = str(error).partition("missing ")[2]
        raise HostError(f"{where}: missing {missing}") from None


def _known(kind: Any, raw: Mapping[str, Any], where: str) -> None:
    names = {field.name for field in fields(kind)}
    for key in raw:
        if key not in names:
            raise HostError(f"{where}{key} is unknown; known are {', '.join(sorted(names))}")


def _value(key: str, value: Any, where: str) -> Any:
    if value is None and key in _NULLABLE:
        return None
    if key in _TEXTS:
        if not isinstance(value, str):
            raise HostError(f"{where}{key} is no text")
        return value
    if key in _FLAGS:
        if not isinstance(value, bool):
            raise HostError(f"{where}{key} is neither true nor false")
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise HostError(f"{where}{key} is no number")
    if value < 0 or (value == 0 and key not in _MAY_BE_ZERO):
        raise HostError(f"{where}{key} {value} is too small")
    if key in _COUNTS and not isinstance(value, int):
        raise HostError(f"{where}{key} {value} is no whole number")
    return value
