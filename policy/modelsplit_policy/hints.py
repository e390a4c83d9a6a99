"""Commands as people are told to type them: each works when it is pasted.

So it says whom to ask where that is not whom it asks by itself; an empty text means that it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def asking(command: str, admin: str) -> str:
    """One of our commands. ``admin``: the address at which the proxy is asked."""
    return f"{command} --admin {admin}" if admin else command


def pulling(models: Iterable[str], upstream: str = "") -> str:
    """What installs them. ``upstream``: Ollama's URL."""
    where = f"OLLAMA_HOST={upstream} " if upstream else ""
    return " && ".join(f"{where}ollama pull {model}" for model in models)
