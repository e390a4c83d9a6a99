"""What the policy allows one client: calls at once, and calls a second."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_policy.overload import retry_after

if TYPE_CHECKING:
    from modelsplit_policy.config.model import ClientsPolicy


class ClientLimits:
    """Every client's leaky bucket, and how many of its calls are here."""

    def __init__(self, policy: ClientsPolicy) -> None:
        self._policy = policy
        self._here: dict[str, int] = {}
        # By client: how full its bucket was, and when that was looked at.
        self._buckets: dict[str, tuple[float, float]] = {}

    def enter(self, client: str) -> Failure | None:
        """Count one more call of this client, or refuse it; ``leave`` is then owed."""
        here, most = self._here.get(client, 0), self._policy.max_concurrent
        if most is not None and here >= most:
            text = f"client {client} already has {most} calls here; retry when one has ended"
            return _refusal(Reason.CLIENT_CONCURRENCY, text, "Client Busy", 1)
        self._here[client] = here + 1
        return None

    def leave(self, client: str) -> None:
        self._here[client] -= 1

    def arrive(self, client: str, now: float) -> Failure | None:
        """Why the call comes too soon after others of its client; None: it does not."""
        rate = self._policy.rate_per_s
        if rate is None:
            return None
        level, at = self._buckets.get(client, (0.0, now))
        level = max(0.0, level - (now - at) * rate)
        if level + 1 > self._policy.burst:
            self._buckets[client] = level, now
            again_s = retry_after(1 / rate)
            text = f"client {client} sends faster than {rate:g}/s; retry in {again_s} s"
            return _refusal(Reason.CLIENT_RATE, text, "Client Rate Limited", again_s)
        self._buckets[client] = level + 1, now
        return None


def _refusal(reason: Reason, text: str, phrase: str, retry_after_s: int) -> Failure:
    return Failure(ErrorCode.RATE_LIMITED, reason, text[:200], phrase, retry_after_s)
