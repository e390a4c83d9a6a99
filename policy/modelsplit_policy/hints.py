"""Commands as people are told to type them: each works when it is pasted.

So it says whom to ask where that is not whom it asks by itself; an empty text means that it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

_ASK: Final = "curl -m 5 http://{}/api/version"
_USUAL: Final = frozenset({"127.0.0.1:11434", "localhost:11434"})


class OllamaSteps(NamedTuple):
    """What to type about one Ollama.

    ``start``: nobody listens there; ``look``: it broke off; ``restart``: it hangs.
    """

    start: str
    look: str
    restart: str


# Where systemd is known to run it.
UNIT: Final = OllamaSteps(
    start="systemctl status ollama",
    look="systemctl status ollama",
    restart="systemctl restart ollama",
)


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
    return OllamaSteps(start=f"{where}ollama serve" if is_here else ask, look=ask, restart=ask)


def ollamas_steps(admin: str = "") -> OllamaSteps:
    """The same of several of them. ``admin``: as for ``asking``."""
    ask = asking("modelsplit host list", admin)
    return OllamaSteps(ask, ask, ask)
