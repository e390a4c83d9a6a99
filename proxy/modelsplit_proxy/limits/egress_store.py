"""What has left for clouds, on disk: one row for each request, never what was in it.

Jobs for the store, as in ``budget_store``. Rows are kept as approvals are: for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import sqlite3

    from modelsplit_proxy.protocol.stream_end import Usage

# Written down, for that has to come first; then nobody took the connection.
NOT_SENT: Final = 0
_ADD: Final = """
INSERT INTO egress
    (request_id, attempt, wall, role, client, why, condition, approval, provider, model, bytes,
     redacted)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_END: Final = """
UPDATE egress
SET status = ?, prompt_tokens = ?, output_tokens = ?, estimated = ?, usd = ?
WHERE request_id = ? AND attempt = ? AND wall = ?
"""
_READ: Final = """
SELECT request_id, attempt, wall, role, client, why, condition, approval, provider, model, bytes,
       redacted, status, prompt_tokens, output_tokens, estimated, usd
FROM egress WHERE wall >= ? ORDER BY wall, id
"""


@dataclass(frozen=True, slots=True)
class Leaving:
    """A request that leaves. ``wall``: seconds since 1970. ``why``: of its route.

    ``client``: the name of its key, or where it came from. ``condition``: that it was escalated
    by; None: it was not. ``approval`` None: it needed none. ``redacted``: how many texts were
    taken out.
    """

    request_id: str
    attempt: int
    wall: float
    role: str
    client: str
    why: str
    condition: str | None
    approval: int | None
    provider: str
    model: str
    size: int
    redacted: int


@dataclass(frozen=True, slots=True)
class Left:
    """The same, and what became of it; None: nobody knows.

    ``status``: the provider's; NOT_SENT: it never left. ``estimated``: it did not say how many
    tokens its answer has.
    """

    leaving: Leaving
    status: int | None
    prompt_tokens: int | None
    output_tokens: int | None
    estimated: bool
    usd: float | None


def add(db: sqlite3.Connection, row: Leaving) -> None:
    """It is about to leave."""
    values = (row.request_id, row.attempt, row.wall, row.role, row.client, row.why, row.condition)
    more = (row.approval, row.provider, row.model, row.size, row.redacted)
    db.execute(_ADD, values + more)


def end(
    db: sqlite3.Connection, row: Leaving, status: int | None, usage: Usage, usd: float | None
) -> None:
    """What became of it."""
    tokens = (usage.prompt_tokens, usage.output_tokens, int(usage.estimated))
    key = (row.request_id, row.attempt, row.wall)
    db.execute(_END, (status, *tokens, usd, *key))


def read(db: sqlite3.Connection, since: float = 0.0) -> list[Left]:
    """Everything that has left from then on (seconds since 1970), oldest first."""
    return [
        Left(Leaving(*row[:12]), row[12], row[13], row[14], bool(row[15]), row[16])
        for row in db.execute(_READ, (since,))
    ]
