"""What is known of the models that one host has loaded, and when to ask it again.

Loads, evictions and expiries all happen around calls, so the end of a call is when to ask;
a slow rhythm finds what happens without any. What an answer says holds until the next one.
While Ollama loads a model it leaves the question open until that is over, so then what was
known stays known for about as long as a load takes; after that, or where the answer is none,
nothing is assumed. What is known is advice, never a condition.

The list of loaded models names each runner once, and a model may have many names (``ollama
cp``): whether one is loaded is told by its digest, which the list of installed models has. A
model of that list that runs elsewhere, and one that is in neither, is never known to be
loaded or not. Neither is one that was made of another (``FROM``) and shares its runner under
a digest of its own: it is told by that it answers at once and is in no list.

Moments are seconds of one monotonic clock of the caller's, whose work the asking is.
"""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from modelsplit_policy.model_names import canonical, canonical_stored, runs_in_cloud
from modelsplit_policy.vocabulary import DEFAULT_HOST

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from modelsplit_policy.vocabulary import Host

# Between an answer and the next question: at least, and at most.
AT_LEAST_S: Final = 0.5
AT_MOST_S: Final = 5.5
# How long what an answer said holds where no other follows. Ollama gives none during a load.
KEEP_S: Final = 120.0
# Between two questions for what is installed: at most, and at least where a name is missed.
INSTALLED_AT_MOST_S: Final = 60.0
INSTALLED_AT_LEAST_S: Final = 5.0
# What Ollama calls loading where the model is loaded takes less, any load more.
WARM_LOAD_S: Final = 0.2

NOTHING: Final[Mapping[str, bool]] = MappingProxyType({})


class Listed(NamedTuple):
    """A model in one of the host's lists. ``remote``: another machine computes its answers.

    ``capabilities`` None: the list does not say. ``size``: bytes of the file, or, of a loaded
    model, of the memory that it takes with its contexts; 0: it does not say either.
    ``vram``: as many of them are in a GPU's memory; None: the list does not say.
    """

    name: str
    digest: str = ""
    remote: bool = False
    capabilities: frozenset[str] | None = None
    size: int = 0
    vram: int | None = None


class LoadedModels:
    """One host's.

    ``models``: the canonical names of the loaded ones, as the host lists them; None: nothing
    is known. ``known``: whether a model is loaded, by its canonical name; of others nothing
    is known. It is never changed, only replaced. ``on_gpu``: every loaded model was wholly in a
    GPU's memory, when last any was loaded; False too where the host does not say.
    """

    __slots__ = (
        "_answered",
        "_asked_installed",
        "_digests",
        "_hurried",
        "_installed",
        "_known_at",
        "_missed",
        "_rows",
        "_shared",
        "_sizes",
        "_wanted",
        "host",
        "known",
        "models",
        "on_gpu",
    )

    def __init__(self, host: Host = DEFAULT_HOST) -> None:
        self.host = host
        self.models: frozenset[str] | None = None
        self.known = NOTHING
        self.on_gpu = False
        # Of the loaded models, and of those that are installed and run here by their names.
        self._digests: frozenset[str] = frozenset()
        self._installed: dict[str, str] = {}
        # What it said last of the loaded models; their digests and bytes.
        self._rows: tuple[Listed, ...] | None = None
        self._sizes: dict[str, tuple[str, int]] = {}
        # Names of installed models that answer under the name of another.
        self._shared: set[str] = set()
        self._asked_installed = -math.inf
        self._missed = False
        self._answered = self._known_at = -math.inf
        self._wanted = False
        self._hurried = 0

    def __repr__(self) -> str:
        known = "unknown" if self.models is None else sorted(self.models)
        return f"<LoadedModels {self.host} {known}>"

    def loaded(self, model: str) -> bool | None:
        """Whether ``model``, by any of its names, is loaded; None: nobody knows.

        Where a name is in neither list, what is installed is wanted anew.
        """
        known = self.known
        if model in known:
            return known[model]
        if self.models is None:
            return None
        name = canonical(model)
        if name in known:
            return known[name]
        if not self._missed and not runs_in_cloud(model):
            self._missed = True
        return None

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of memory that each loaded model takes, its contexts too, by canonical name.

        An installed model of the same digest takes as much. Those the host does not tell of are
        not in it.
        """
        sizes = self._sizes
        by_digest = {digest: size for digest, size in sizes.values() if digest}
        told = {
            name: by_digest[digest]
            for name, digest in self._installed.items()
            if digest in by_digest
        }
        return told | {name: size for name, (_, size) in sizes.items()}

    @property
    def digests(self) -> Mapping[str, str]:
        """Of the installed models that run here, by their canonical names."""
        return self._installed

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

    def wants_installed(self, now: float) -> bool:
        """Whether it is time to ask for the list of installed models, too."""
        every_s = INSTALLED_AT_LEAST_S if self._missed else INSTALLED_AT_MOST_S
        return now - self._asked_installed >= every_s

    # What becomes known.

    def asking(self) -> None:
        """The host is being asked: what is wanted from now on is another question."""
        self._wanted = False

    def observe(self, loaded: Iterable[Listed] | None, now: float) -> None:
        """Its list of loaded models; None: it said something else, or is not there."""
        self._answered = self._known_at = now
        if loaded is None:
            self.models = None
        else:
            rows = tuple(loaded)
            if rows == self._rows and self.models is not None:
                # It says the same again, and what follows from it is known.
                return
            self._rows = rows
            self.models = frozenset(canonical_stored(row.name) for row in rows)
            self._digests = frozenset(row.digest for row in rows if row.digest)
            self._sizes = {
                canonical_stored(row.name): (row.digest, row.size) for row in rows if row.size > 0
            }
            if rows:
                self.on_gpu = all(row.size > 0 and row.vram == row.size for row in rows)
        self._infer()

    def unanswered(self, now: float) -> None:
        """It has left the question open for as long as anybody waits for it."""
        self._answered = now
        if now - self._known_at >= KEEP_S:
            self.models = None
            self._infer()

    def learn(self, installed: Iterable[Listed] | None, now: float) -> None:
        """Its list of installed models; None: it gave none, and the last one holds."""
        self._asked_installed = now
        self._missed = installed is None
        if installed is not None:
            self._installed = {
                canonical_stored(row.name): row.digest
                for row in installed
                if row.digest and not row.remote and not runs_in_cloud(row.name)
            }
            self._shared.intersection_update(self._installed)
            self._infer()

    def answered(self, model: str, load_s: float | None) -> None:
        """A model that is known not to be loaded has answered; ``load_s``: it took so long to load.

        If that is no load, what answered is loaded and not listed. If it is listed after all,
        what was known was old.
        """
        if load_s is not None and load_s < WARM_LOAD_S:
            self._shared.add(canonical(model))
            self._infer()

    def _infer(self) -> None:
        if self.models is None:
            self.known = NOTHING
            return
        digests = self._digests
        known = {name: digest in digests for name, digest in self._installed.items()}
        known.update(dict.fromkeys(self.models, True))
        self._shared = {name for name in self._shared if not known.get(name)}
        for name in self._shared:
            known.pop(name, None)
        self.known = MappingProxyType(known)
