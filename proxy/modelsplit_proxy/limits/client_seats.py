"""How many calls one client may have here at once, waiting or running."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_policy.config.model import ClientsPolicy


class ClientSeats:
    """``max_concurrent`` calls per client; None: no limit. Counts only who is here.

    ``own``: clients, by name, whose limits are not those of everybody.
    """

    def __init__(
        self, common: ClientsPolicy, own: Mapping[str, ClientsPolicy] | None = None
    ) -> None:
        self._common = common
        self._own = own or {}
        self._here: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<ClientSeats {self._here} of {self._common.max_concurrent}>"

    def limit(self, client: str) -> int | None:
        """How many calls this client may have here."""
        return self._own.get(client, self._common).max_concurrent

    def enter(self, client: str) -> bool:
        """Count one more call of this client, or refuse it; ``leave`` is then owed."""
        here = self._here.get(client, 0)
        limit = self.limit(client)
        if limit is not None and here >= limit:
            return False
        self._here[client] = here + 1
        return True

    def leave(self, client: str) -> None:
        left = self._here[client] - 1
        if left:
            self._here[client] = left
        else:
            del self._here[client]
