"""How many calls one client may have here at once, waiting or running."""

from __future__ import annotations


class ClientSeats:
    """``limit`` calls per client; None: no limit. Counts only who is here."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self._here: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<ClientSeats {self._here} of {self.limit}>"

    def enter(self, client: str) -> bool:
        """Count one more call of this client, or refuse it; ``leave`` is then owed."""
        here = self._here.get(client, 0)
        if self.limit is not None and here >= self.limit:
            return False
        self._here[client] = here + 1
        return True

    def leave(self, client: str) -> None:
        left = self._here[client] - 1
        if left:
            self._here[client] = left
        else:
            del self._here[client]
