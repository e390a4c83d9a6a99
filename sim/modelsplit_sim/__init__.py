"""A stand-in Ollama: the same bytes, queues and failures, without a model."""

from .config import SimConfig
from .faults import Fault, Faults, Kind
from .journal import Call, CallState, Counts
from .models import DEFAULT_MODELS, ModelSpec, model
from .server import Sim

__all__ = [
    "DEFAULT_MODELS",
    "Call",
    "CallState",
    "Counts",
    "Fault",
    "Faults",
    "Kind",
    "ModelSpec",
    "Sim",
    "SimConfig",
    "model",
]
