"""One role's line: first come first served, but no client stands in front of all others.

Start-time fair queueing (Goyal, Vin and Cheng, 1996) with every call of size one. A call
gets a tag when it joins: one more than its client's last call in line, or the line's own
progress if the client has none. The smallest tag goes first, and ties go by arrival. A
client's hundred calls get a hundred consecutive tags; another client's one call gets the
tag of the moment and passes ninety-nine of them. With one client this is plain FIFO.

Calls stand in lanes, one for each model, because the head of the line may want a model
that cannot take another call while the next one wants a model that can. Joining, leaving
and finding the head of a lane cost O(log n).
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from modelsplit_policy.tickets import Ticket

# A lane is swept when more than half of it, and more than so many, have left the line.
_SWEEP_ABOVE: Final = 64

_Entry = tuple[bool, float, int, "Ticket"]


class RoleQueue:
    """The calls of one role that wait, in the order in which they should go."""

    def __init__(self) -> None:
        # In order of arrival; an OrderedDict finds its first member in constant time also
        # after many removals, a dict does not.
        self._waiting: OrderedDict[Ticket, None] = OrderedDict()
        self._lanes: dict[str, list[_Entry]] = {}
        self._last_tag: dict[str, float] = {}
        self._of_client: dict[str, int] = {}
        self._of_model: dict[str, int] = {}
        self._progress = 0.0
        self._joined = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Ticket]:
        return iter(self._waiting)

    def __contains__(self, ticket: Ticket) -> bool:
        return ticket in self._waiting

    def oldest(self) -> Ticket:
        """Who has waited longest. The line must not be empty."""
        return next(iter(self._waiting))

    def join(self, ticket: Ticket) -> None:
        tag = max(self._progress, self._last_tag.get(ticket.client, 0.0))
        self._last_tag[ticket.client] = tag + 1
        self._of_client[ticket.client] = self._of_client.get(ticket.client, 0) + 1
        self._of_model[ticket.model] = self._of_model.get(ticket.model, 0) + 1
        self._joined += 1
        self._waiting[ticket] = None
        # A call marked ``front`` (a retry that lost its seat through no fault of its own)
        # goes before all others, in order.
        entry = (not ticket.front, tag, self._joined, ticket)
        heapq.heappush(self._lanes.setdefault(ticket.model, []), entry)

    def serve(self, ticket: Ticket, tag: float) -> None:
        """Take the head of a lane out of the line because its turn has come."""
        self._progress = max(self._progress, tag)
        self.take_out(ticket)

    def remove(self, ticket: Ticket) -> None:
        """Take a call out of the line unserved: its client owes nothing for it."""
        self._last_tag[ticket.client] -= 1
        self.take_out(ticket)

    def take_out(self, ticket: Ticket) -> None:
        """Take a call out of the line, served out of its turn.

        Its heap entry goes when it comes to the top, or with its lane; a lane full of such
        entries is swept.
        """
        del self._waiting[ticket]
        self._of_model[ticket.model] -= 1
        if not self._of_model[ticket.model]:
            del self._of_model[ticket.model]
            del self._lanes[ticket.model]
        else:
            self._sweep(ticket.model)
        left = self._of_client[ticket.client] - 1
        if left:
            self._of_client[ticket.client] = left
        else:
            # A client with nothing in line owes nothing; this also bounds the memory.
            del self._of_client[ticket.client]
            del self._last_tag[ticket.client]

    def _sweep(self, model: str) -> None:
        lane = self._lanes[model]
        if len(lane) > _SWEEP_ABOVE + 2 * self._of_model[model]:
            lane[:] = [entry for entry in lane if entry[3] in self._waiting]
            heapq.heapify(lane)

    def order(self) -> list[Ticket]:
        """Everyone who waits, in the order in which they should go."""
        entries = [
            entry for lane in self._lanes.values() for entry in lane if entry[3] in self._waiting
        ]
        return [entry[3] for entry in sorted(entries, key=_order)]

    def place(self, ticket: Ticket) -> int:
        """Where a call stands in that order, from 1; behind all if it is not in line."""
        lane = self._lanes.get(ticket.model, ()) if ticket in self._waiting else ()
        own = next((_order(entry) for entry in lane if entry[3] is ticket), None)
        if own is None:
            return len(self._waiting) + 1
        return 1 + sum(
            _order(entry) < own and entry[3] in self._waiting
            for lane in self._lanes.values()
            for entry in lane
        )

    def heads(self) -> list[tuple[bool, float, int, Ticket]]:
        """The first call of every lane, best first."""
        firsts = []
        for lane in self._lanes.values():
            while lane[0][3] not in self._waiting:
                heapq.heappop(lane)
            firsts.append(lane[0])
        if len(firsts) > 1:
            firsts.sort(key=_order)
        return firsts

    @property
    def models(self) -> Mapping[str, int]:
        """How many calls wait for each model; only models waited for."""
        return self._of_model

    def waits_for(self, model: str) -> bool:
        """True if somebody in this line wants ``model``."""
        return model in self._of_model


def _order(entry: _Entry) -> tuple[bool, float, int]:
    return entry[:3]
