"""Which host has computed the beginning of a prompt before, and may still have it in its cache.

A conversation goes on with all that was said before; the host that answered last need not read it
again. A prompt is known by marks: one number for each beginning of it, from the shortest to the
whole; of two prompts that begin alike the first marks are the same. What was asked last counts.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelsplit_policy.vocabulary import Host

# Marks that are remembered: a few hundred conversations.
MOST: Final = 8192


class PromptAffinity:
    """Where prompts have been asked lately."""

    __slots__ = ("_hosts",)

    def __init__(self) -> None:
        self._hosts: OrderedDict[tuple[str, int], Host] = OrderedDict()

    def __repr__(self) -> str:
        return f"<PromptAffinity {len(self._hosts)} marks>"

    def asked(self, model: str, marks: Sequence[int], host: Host) -> None:
        """A call of ``model`` with this prompt goes to ``host``."""
        hosts = self._hosts
        for mark in marks:
            hosts[model, mark] = host
            hosts.move_to_end((model, mark))
        while len(hosts) > MOST:
            hosts.popitem(last=False)

    def host(self, model: str, marks: Sequence[int]) -> Host | None:
        """Who was asked last what begins most like it; None: nobody anything like it."""
        for mark in reversed(marks):
            host = self._hosts.get((model, mark))
            if host is not None:
                return host
        return None
