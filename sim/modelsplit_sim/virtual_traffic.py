"""Traffic of a mission: who calls when, for how many tokens, and how long each client stays.

A scenario is a file with the shape of a host and its traffic; the virtual host and the
stand-in server (``--scenario``) are driven by the same files. A trace is drawn from a seed
alone, so that everything that is compared meets the same calls.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .host_file import host_of
from .replay.demand import Demand

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .host_shape import HostShape

SCENARIOS = Path(__file__).parent / "scenarios"


class Arrival(NamedTuple):
    """One call. ``pace``: how much longer it takes than usual; ``patience_s``: it leaves then."""

    at: float
    role: str
    tokens: int
    patience_s: float
    pace: float

    def demand(self, chat_model: str) -> Demand:
        """What its client asks for: its role by the alias, or, of CHAT, a model."""
        model = chat_model if self.role == "CHAT" else self.role.lower()
        return Demand(self.at, model, self.tokens, patience_s=self.patience_s, pace=self.pace)


@dataclass(frozen=True, slots=True)
class Stream:
    """One role's calls: one every ``every_s``, Poisson; ``tokens``: mean and deviation."""

    every_s: float
    tokens: tuple[float, float]
    patience_s: float


@dataclass(frozen=True, slots=True)
class Traffic:
    """``burst_share`` of arrivals are 2 to ``burst_max`` calls, ``burst_gap_s`` apart."""

    roles: Mapping[str, Stream]
    burst_share: float = 0.2
    burst_max: int = 4
    burst_gap_s: float = 0.2
    least_tokens: int = 8

    def trace(
        self, seconds: float, seed: int, rate: float = 1.0, spread: float = 0.0
    ) -> list[Arrival]:
        """The calls of one run, by role. ``rate``: so many times as often."""
        chance = random.Random(seed)
        paces = random.Random(~seed)
        arrivals: list[Arrival] = []
        for role, stream in self.roles.items():
            at = chance.expovariate(rate / stream.every_s)
            while at <= seconds:
                single = chance.random() < 1 - self.burst_share
                for number in range(1 if single else chance.randint(2, self.burst_max)):
                    tokens = max(self.least_tokens, int(chance.gauss(*stream.tokens)))
                    pace = max(0.5, paces.gauss(1.0, spread)) if spread else 1.0
                    begins = at + number * self.burst_gap_s
                    arrivals.append(Arrival(begins, role, tokens, stream.patience_s, pace))
                at += chance.expovariate(rate / stream.every_s)
        return arrivals


class Scenario(NamedTuple):
    host: HostShape
    traffic: Traffic


def read_scenario(path: Path | str) -> Scenario:
    """A scenario file, or one of the shipped ones by its name. ValueError: it is none."""
    file = Path(path)
    if not file.suffix:
        file = SCENARIOS / f"{path}.json"
    raw = json.loads(file.read_bytes())
    try:
        return Scenario(host_of(raw["host"]), _traffic(raw["traffic"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file} is no scenario: {error!r}") from None


def _traffic(raw: dict[str, Any]) -> Traffic:
    roles = {
        role: Stream(row["every_s"], (row["tokens"][0], row["tokens"][1]), row["patience_s"])
        for role, row in raw["roles"].items()
    }
    return Traffic(**raw | {"roles": roles})
