"""Commands as people are told to type them: each works when it is pasted.

So it says whom to ask where that is not whom it asks by itself; an empty text means that it is.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

_ASK: Final = "curl -m 5 http://{}/api/version"
_USUAL: Final = frozenset({"127.0.0.1:11434", "localhost:11434"})


class Absence(Enum):
    """How an Ollama is not there: nobody answers, it hangs, or what answers is none."""

    GONE = auto()
    HANGS = auto()
    OTHER = auto()


class OllamaSteps(NamedTuple):
    """What to type about one Ollama.

    ``start``: nobody listens there; ``look``: it broke off; ``restart``: it hangs; ``ask``: who
    listens there?
    """

    start: str
    look: str
    restart: str
    ask: str

    def against(self, absence: Absence) -> str:
        steps = {Absence.HANGS: self.restart, Absence.OTHER: self.ask}
        return steps.get(absence, self.start)


# Where systemd is known to run it.
UNIT: Final = OllamaSteps(
    start="systemctl status ollama",
    look="systemctl status ollama",
    restart="systemctl restart ollama",
    ask=_ASK.format("127.0.0.1:11434"),
)


def not_there(upstream: str, absence: Absence, error: str, of_host: str = "") -> str:
    """That the Ollama at this URL is not there, in words.

    ``error``: what was seen instead; ``of_host``: whose it is, where there are several.
    """
    if absence is Absence.OTHER:
        return f"what listens at {upstream}{of_host} does not answer as Ollama does ({error})"
    return f"Ollama{of_host} at {upstream} is not answering ({error})"


def asking(command: str, admin: str) -> str:
    """One of our commands. ``admin``: the address at which the proxy is asked."""
    return f"{command} --admin {admin}" if admin else command


def pulling(models: Iterable[str], upstream: str = "") -> str:
    """What installs them. ``upstream``: Ollama's URL."""
    where = f"OLLAMA_HOST={upstream} " if upstream else ""
    return " && ".join(f"{where}ollama pull {model}" for model in models)


def ollama_steps(authority: str, *, is_here: bool, has_unit: bool) -> OllamaSteps:
    """What to type about the Ollama at ``authority``.

    ``is_here``: it is on this machine; ``has_unit``: and systemd runs it, as far as anybody can
    tell. Else nobody knows how it is started, and it is asked.
    """
    if has_unit:
        return UNIT
    ask = _ASK.format(authority)
    where = "" if authority in _USUAL else f"OLLAMA_HOST={authority} "
    start = f"{where}ollama serve" if is_here else ask
    restart = f"{ask}   # answers once Ollama is restarted"
    return OllamaSteps(start, look=ask, restart=restart, ask=ask)


def ollamas_steps(admin: str = "") -> OllamaSteps:
    """The same of several of them. ``admin``: as for ``asking``."""
    ask = asking("modelsplit host list", admin)
    return OllamaSteps(ask, ask, ask, ask)
