"""What it amounts to that an exchange with Ollama broke on a route that is passed through."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelsplit_policy.hints import ollamas_steps
from modelsplit_policy.vocabulary import Provider
from modelsplit_proxy.protocol.upstream_failures import failure_of_error

if TYPE_CHECKING:
    from collections.abc import Iterable

    from modelsplit_policy.failures import Failure
    from modelsplit_proxy.http.upstream import UpstreamError, UpstreamTarget


def with_one(error: UpstreamError, target: UpstreamTarget) -> Failure:
    """While the client has not seen a byte of the answer from ``target``."""
    return failure_of_error(
        error,
        upstream=f"http://{target.authority}",
        steps=target.steps,
        provider=Provider.LOCAL,
    )


def with_all(error: UpstreamError, targets: Iterable[UpstreamTarget], asked_at: str) -> Failure:
    """Where none of ``targets`` gave an answer; ``error``: one of theirs.

    ``asked_at``: where our commands ask, if not by themselves.
    """
    upstream = ", ".join(f"http://{target.authority}" for target in targets)
    return failure_of_error(
        error, upstream=upstream, steps=ollamas_steps(asked_at), provider=Provider.LOCAL
    )
