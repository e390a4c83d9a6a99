"""The public Azure LLM inference format: arrivals with tokens of prompt and answer, no roles.

A trace of it is ``TIMESTAMP,ContextTokens,GeneratedTokens``. Whose calls they stand for is for
whoever replays them to say: one name for a file, and if wanted another one for its longer
answers. One host cannot carry a data centre's traffic: of all arrivals every n-th is kept, which
keeps their bursts.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from modelsplit_policy.roles import Roles, Route, RouteRequest

from .demand import NO_RETRIES, Demand
from .recorded import TraceError
from .run import Traffic
from .traffic import Coverage, in_turn

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from modelsplit_policy.config.model import Policy

    from .demand import Retries
    from .traffic import Source

_HEADER: Final = "TIMESTAMP,ContextTokens,GeneratedTokens"
# Of roles without a time of their own.
_PATIENCE_S: Final = 60.0


class Arrival(NamedTuple):
    """One line: seconds since the first, and tokens."""

    at: float
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Mapping:
    """What a file's calls ask for: ``name``, or ``longer`` where an answer has more tokens."""

    name: str
    longer: str = ""
    tokens: int = 0

    def of(self, arrival: Arrival) -> str:
        return self.longer if self.longer and arrival.output_tokens > self.tokens else self.name


def mapping_of(text: str) -> Mapping:
    """``planner``, or ``qwen3:8b,executor>300``. ValueError: it is neither."""
    name, _, rest = text.partition(",")
    if not name:
        raise ValueError(f'"{text}" names no model')
    if not rest:
        return Mapping(name)
    longer, _, tokens = rest.partition(">")
    if not longer or not tokens.isdecimal():
        raise ValueError(f'"{text}" is not NAME or NAME,NAME>TOKENS')
    return Mapping(name, longer, int(tokens))


def read(lines: Iterable[str]) -> list[Arrival]:
    """The arrivals of a file, in order. TraceError: what is wrong, and in which line."""
    found: list[tuple[float, int, int]] = []
    for number, raw in enumerate(lines, 1):
        text = raw.strip().removeprefix("\ufeff")
        if number == 1 and text != _HEADER:
            raise TraceError(f"the first line is not {_HEADER}", 1)
        if text and number > 1:
            found.append(_row(text, number))
    if not found:
        raise TraceError("there is no call in it")
    found.sort()
    first = found[0][0]
    return [Arrival(at - first, prompt, output) for at, prompt, output in found]


def _row(text: str, line: int) -> tuple[float, int, int]:
    cells = text.split(",")
    if len(cells) != 3:
        raise TraceError(f"{len(cells)} cells where there are three", line)
    stamp = cells[0].strip()
    try:
        # Seven digits of a second, of which six are read.
        at = datetime.fromisoformat(stamp[:26])
    except ValueError:
        raise TraceError(f'TIMESTAMP "{stamp[:40]}" is no time', line) from None
    prompt, output = (
        _count(name, cell, line)
        for name, cell in zip(_HEADER.split(",")[1:], cells[1:], strict=True)
    )
    seconds = (at - datetime(1970, 1, 1)).total_seconds()  # noqa: DTZ001 - only differences count
    return seconds, prompt, output


def _count(name: str, cell: str, line: int) -> int:
    text = cell.strip()
    if not (text.isascii() and text.isdecimal()):
        raise TraceError(f'{name} "{text[:40]}" is no number of tokens', line)
    return int(text)


class AzureTraffic:
    """Files of it as a source. ``thin``: every so many-th arrival of each is kept.

    Another seed keeps others: as many different runs as there are arrivals between two kept.
    """

    def __init__(
        self,
        files: Sequence[tuple[Sequence[Arrival], Mapping]],
        policy: Policy,
        *,
        thin: int = 1,
        spread: float = 0.0,
        retries: Retries = NO_RETRIES,
    ) -> None:
        self._files = [(tuple(arrivals), mapping) for arrivals, mapping in files]
        self._policy = policy
        self._thin = thin
        self._spread = spread
        self._retries = retries
        if not self._kept(1):
            raise TraceError(f"of every {thin} calls one is kept, and there are fewer")
        names = {name for _, mapping in files for name in (mapping.name, mapping.longer) if name}
        self._patience = {name: _patience_s(policy, name) for name in names}

    def __repr__(self) -> str:
        return f"<AzureTraffic, one of {self._thin}>"

    def halves(self, calls: int) -> tuple[Source, Source]:
        """The arrivals in pieces of time, every other piece in each half; TraceError: too few."""
        moments = sorted(arrival.at for arrivals, _ in self._files for arrival in arrivals)
        if len(moments) < 2 * self._thin or moments[0] == moments[-1]:
            raise TraceError("too few calls to learn from some and to judge by others")
        return in_turn(moments, calls * self._thin, self._between)

    def _between(self, begins: float, ends: float) -> AzureTraffic:
        files = [
            ([arrival for arrival in arrivals if begins <= arrival.at < ends], mapping)
            for arrivals, mapping in self._files
        ]
        return AzureTraffic(
            files, self._policy, thin=self._thin, spread=self._spread, retries=self._retries
        )

    def _kept(self, seed: int) -> list[tuple[Arrival, str]]:
        return sorted(
            (arrival, mapping.of(arrival))
            for arrivals, mapping in self._files
            for arrival in arrivals[-seed % self._thin :: self._thin]
        )

    def drawn(self, seed: int, load: float = 1.0) -> tuple[Traffic, Coverage]:
        """What is kept, begun at its first; how fast each call computes is drawn."""
        kept = self._kept(seed)
        begins = kept[0][0].at if kept else 0.0
        chance = random.Random(f"azure {seed}")
        demands = [
            Demand(
                at=(arrival.at - begins) / load,
                model=name,
                output_tokens=max(1, arrival.output_tokens),
                prompt_tokens=arrival.prompt_tokens,
                patience_s=self._patience[name],
                pace=max(0.5, 1 + chance.gauss(0, 1) * self._spread),
            )
            for arrival, name in kept
        ]
        calls = len(demands)
        parts = {
            "arrival": {"recorded": calls},
            "prompt": {"recorded": calls},
            "length of the answer": {"recorded": calls},
            "role": {"assumed": calls},
            "patience": {"assumed, the role's timeout": calls},
            "pace": {"drawn": calls},
        }
        seconds = (kept[-1][0].at - begins) / load if kept else 0.0
        return Traffic(demands, retries=self._retries), Coverage(calls, seconds, parts)


def _patience_s(policy: Policy, name: str) -> float:
    route = Roles(policy).route(RouteRequest(name))
    timeout_ms = policy.roles[route.role].timeout_ms if isinstance(route, Route) else None
    return _PATIENCE_S if timeout_ms is None else timeout_ms / 1000
