"""What holds for one host: its seats, who runs on it, what it has loaded, what it can do.

Roles, their caps and their lines are the fleet's; everything that a machine decides is here,
one object for each ``Host``. Whether it takes one more call of a model is asked of it; which
host a call goes to is for ``admission`` to say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelsplit_policy.host_rules import EVERYTHING
from modelsplit_policy.tickets import Hold
from modelsplit_policy.vocabulary import DEFAULT_HOST

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_policy.host_rules import HostRules
    from modelsplit_policy.parallelism import Flight, Parallelism, Report
    from modelsplit_policy.vocabulary import Host


class HostSeats:
    """One host's seats. ``model_seats``: caps of single models on it, by canonical name.

    ``drained``: it takes no new call. ``installed``: the canonical names of its models; None: not
    known. ``sizes``: bytes of memory that a model takes there, by name; of others nobody knows.
    What it took when it was loaded counts; until it was, the size of its file.
    """

    __slots__ = (
        "_files",
        "_taken",
        "away",
        "by_model",
        "drained",
        "host",
        "installed",
        "loaded",
        "model_seats",
        "mute",
        "overdue",
        "parallelism",
        "rules",
        "running",
        "seats",
        "sizes",
    )

    def __init__(
        self,
        seats: int,
        model_seats: Mapping[str, int],
        parallelism: Parallelism,
        host: Host = DEFAULT_HOST,
        rules: HostRules = EVERYTHING,
    ) -> None:
        self.host = host
        self.rules = rules
        self.seats = seats
        self.model_seats = dict(model_seats)
        self.parallelism = parallelism
        self.running = 0
        # Nobody listens there just now, and calls wait for that to change.
        self.away = False
        # Somebody listens and answers nothing: who waits for others waits for it.
        self.mute = False
        # Calls that were started because they were overdue.
        self.overdue = 0
        self.by_model: dict[str, int] = {}
        # Whether a model is loaded, by name; of others nobody knows.
        self.loaded: Mapping[str, bool] = {}
        self.drained = False
        self.installed: frozenset[str] | None = None
        self.sizes: Mapping[str, int] = {}
        # Bytes of a model's file, and of its memory when it was loaded last, by name.
        self._files: Mapping[str, int] = {}
        self._taken: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<HostSeats {self.host} {self.running}/{self.seats}, {self.parallelism!r}>"

    @property
    def is_shut(self) -> bool:
        """It takes no call now: drained, or calls wait for somebody to listen there."""
        return self.away or self.drained

    def has(self, model: str) -> bool | None:
        """Whether the model of that canonical name is installed there; None: nobody knows."""
        return None if self.installed is None else model in self.installed

    def note_installed(self, models: Mapping[str, int]) -> None:
        """What it has installed, by canonical name, and the bytes of each file; 0: unknown."""
        before, self._files = self._files, {name: size for name, size in models.items() if size}
        # A file of another size is another model under that name.
        taken = self._taken.items()
        self._taken = {
            name: size
            for name, size in taken
            if name in models and before.get(name) == self._files.get(name)
        }
        self.installed = frozenset(models)
        self.sizes = {**self._files, **self._taken}

    def note_taken(self, sizes: Mapping[str, int]) -> None:
        """Bytes of memory that models which are loaded take, by canonical name."""
        self._taken.update(sizes)
        self.sizes = {**self._files, **self._taken}

    def hold(self, model: str) -> Hold | None:
        """The hard limit of this host that keeps the next call of ``model`` from a seat."""
        if self.away:
            return Hold.AWAY
        if self.running >= self.seats:
            return Hold.GLOBAL_CAP
        # Few models have caps of their own.
        if self.model_seats:
            cap = self.model_seats.get(model)
            if cap is not None and self.by_model.get(model, 0) >= cap:
                return Hold.MODEL_CAP
        return None

    def take(self, model: str, now: float, length_s: float | None = None) -> Flight:
        """A call of ``model`` takes a seat; ``give_back`` is then owed.

        ``length_s``: how long it is expected to keep it; None: nobody knows.
        """
        self.running += 1
        self.by_model[model] = self.by_model.get(model, 0) + 1
        return self.parallelism.start(
            model, now, resident=self.loaded.get(model), length_s=length_s
        )

    def give_back(self, flight: Flight, now: float, held_s: float, report: Report | None) -> None:
        """The call of ``flight`` has left its seat after ``held_s`` seconds."""
        self.running -= 1
        left = self.by_model[flight.model] - 1
        if left:
            self.by_model[flight.model] = left
        else:
            del self.by_model[flight.model]
        self.parallelism.end(flight, now, held_s, report)
