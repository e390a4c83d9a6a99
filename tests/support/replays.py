"""Short replays for tests: the shipped policy with changes, a plain host, calls by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelsplit_policy.config.parser import parse
from modelsplit_sim.host_shape import HostShape
from modelsplit_sim.replay.demand import Demand
from modelsplit_sim.replay.run import Contender, Traffic, play

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from modelsplit_policy.config.model import Policy
    from modelsplit_sim.replay.attempt import CallRun
    from modelsplit_sim.replay.run import Played

SHIPPED = Path(__file__).parents[2] / "config" / "model-policy.json"
# A hundred tokens a second, nothing else: the times of calls can be worked out in one's head.
PLAIN = HostShape(
    "plain", ms_per_token=10.0, prompt_ms=0.0, load_ms=2000.0, contention=0.0, num_parallel=4
)


def rules(
    planner: Mapping[str, Any] | None = None,
    roles: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Policy:
    """The shipped policy, with more for PLANNER, for other roles, and other keys as given."""
    document = json.loads(SHIPPED.read_bytes())
    for role, keys in {"PLANNER": planner or {}, **(roles or {})}.items():
        document["roles"][role] |= keys
    return parse(document | changes)


def one_at_a_time(models: dict[str, Any] | None = None, **planner: Any) -> Policy:
    """One seat for planners, and as many calls at once as there are seats."""
    seat = {"max_concurrent": 1, "reserved": 0}
    together = {"max_concurrent": 6, "parallel": 6}
    return rules(seat | planner, models=models or {}, **{"global": together})


def plan(at: float, tokens: int = 100, **more: Any) -> Demand:
    return Demand(at, "planner", tokens, **more)


def replayed(
    policy: Policy,
    demands: Sequence[Demand],
    host: HostShape = PLAIN,
    *,
    direct: str | None = None,
    **traffic: Any,
) -> Played:
    return play(Contender("x", policy, direct), host, Traffic(demands, **traffic), seed=1)


def fates(played: Played) -> list[str]:
    """Of each call: when it ended and how, as in ``1.00 ok`` or ``8.00 queue_timeout``."""
    return [f"{call.ended:.2f} {fate(call)}" for call in played.calls]


def fate(call: CallRun) -> str:
    if call.gone:
        return "left"
    return "ok" if call.failure is None else str(call.failure.reason)
