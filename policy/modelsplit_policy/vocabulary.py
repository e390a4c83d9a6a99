"""The words everything else is said in: roles, contexts, providers, dialects.

Values only. Nothing here decides anything.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NewType

# Which machine's Ollama. There is one today; what differs from host to host is keyed by it.
Host = NewType("Host", str)
DEFAULT_HOST: Final = Host("default")


class Role(StrEnum):
    """Whose call this is. The row of the policy table that governs it."""

    PLANNER = "PLANNER"
    EXECUTOR = "EXECUTOR"
    HEAVY = "HEAVY"
    CLOUD = "CLOUD"
    CHAT = "CHAT"


class Context(StrEnum):
    """Which activity the call's latency is counted under."""

    PLANNER = "PLANNER"
    EXECUTOR = "EXECUTOR"
    CHAT = "CHAT"


class Provider(StrEnum):
    """Who computes the answer."""

    LOCAL = "LOCAL"
    CLOUD = "CLOUD"


class Dialect(StrEnum):
    """Whose wire format the client speaks; decides error shapes and end markers."""

    OLLAMA = "ollama"
    OPENAI = "openai"
    ANTHROPIC = "anthropic"


class Loading(StrEnum):
    """What a call that asks nothing does to its model."""

    LOAD = "load"
    UNLOAD = "unload"


class Purpose(StrEnum):
    """What a client says it asks a model for. Recorded; no route depends on it."""

    FAILURE_ANALYSIS = "failure_analysis"
    COMPLEX_OUTPUT = "complex_output"


class JobState(StrEnum):
    """How a job stands. ``expired``: nobody said that it had ended."""

    OPEN = "open"
    OK = "ok"
    FAILED = "failed"
    EXPIRED = "expired"


class Action(StrEnum):
    """What a request does to the models of the host, or to the account it is known by."""

    PULL = "pull"
    PUSH = "push"
    CREATE = "create"
    COPY = "copy"
    DELETE = "delete"
    BLOBS = "blobs"
    ACCOUNT = "account"


class RouteReason(StrEnum):
    """Which rule chose the role and model (the value of ``X-LLM-Route-Reason``)."""

    HEADER = "header"
    ALIAS = "alias"
    CLAIM = "claim"
    DEFAULT = "default"
    FALLBACK = "fallback"
    ESCALATION = "escalation"
    EXPERIMENT = "experiment"
