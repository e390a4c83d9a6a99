"""What is known of the models that one host has loaded, and when to ask it again.

Loads, evictions and expiries all happen around calls, so the end of a call is when to ask;
a slow rhythm finds what happens without any. What an answer says holds until the next one.
Where there was no answer nothing is assumed: what is known is advice, never a condition.

Moments are seconds of one monotonic clock of the caller's, whose work the asking is.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from modelsplit_policy.model_names import canonical, canonical_stored
from modelsplit_policy.vocabulary import DEFAULT_HOST

if TYPE_CHECKING:
    from collections.abc import Iterable

    from modelsplit_policy.vocabulary import Host

# Between an answer and the next question: at least, and at most.
AT_LEAST_S: Final = 0.5
AT_MOST_S: Final = 5.5


class LoadedModels:
    """One host's. ``models``: their canonical names; None: nothing is known."""

    __slots__ = ("_answered", "_hurried", "_wanted", "host", "models")

    def __init__(self, host: Host = DEFAULT_HOST) -> None:
        self.host = host
        self.models: frozenset[str] | None = None
        self._answered = -math.inf
        self._wanted = False
        self._hurried = 0

    def __repr__(self) -> str:
        known = "unknown" if self.models is None else sorted(self.models)
        return f"<LoadedModels {self.host} {known}>"

    def loaded(self, model: str) -> bool | None:
        """Whether ``model``, by any of its names, is loaded; None: nobody knows."""
        models = self.models
        return None if models is None else model in models or canonical(model) in models

    # When to ask.

    def want(self) -> bool:
        """Something may have changed: a call has ended. True: the next question is now sooner."""
        if self._wanted:
            return False
        self._wanted = True
        return not self._hurried

    def hurry(self) -> bool:
        """Somebody waits for a load to end; ``relax`` is then owed. True: as for ``want``."""
        sooner = self.want()
        self._hurried += 1
        return sooner

    def relax(self) -> None:
        self._hurried -= 1

    def next_question(self) -> float:
        """The moment from which the host is to be asked; long ago before the first answer."""
        wanted = self._wanted or self._hurried
        return self._answered + (AT_LEAST_S if wanted else AT_MOST_S)

    # What becomes known.

    def asking(self) -> None:
        """The host is being asked: what is wanted from now on is another question."""
        self._wanted = False

    def observe(self, names: Iterable[str] | None, now: float) -> None:
        """Its answer, as it names them; None: it gave none, and nothing is known any more."""
        self.models = None if names is None else frozenset(map(canonical_stored, names))
        self._answered = now
