"""What calls have cost since some time, as the state file has it: estimates, in US dollars."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from modelsplit_proxy.runtime.clock import rfc3339

if TYPE_CHECKING:
    from modelsplit_proxy.records.reader import Read

# Clients may invent names of models without end; who costs most comes first.
_MOST_PARTS: Final = 200
_PARTS: Final = """
SELECT role, model, count(*), coalesce(sum(cost_usd), 0), sum(cost_usd IS NULL) FROM calls
WHERE started_us >= ? GROUP BY role, model ORDER BY 4 DESC, 3 DESC, role, model
"""


def spent(read: Read, since_us: int, table: str | None) -> dict[str, Any]:
    """The total, what it leaves out, and the parts. Blocks on disk; may raise StoreError.

    Both attempts of a call count, under the model that answered it. ``table``: the price
    table's name and date.
    """
    parts = [
        {"llm_role": role, "model": model, "usd": round(usd, 9), "calls": calls, "unknown": unknown}
        for role, model, calls, usd, unknown in read(_PARTS, (since_us,))
    ]
    return {
        "estimate": True,
        "since": rfc3339(since_us / 1e6),
        "usd": round(sum(part["usd"] for part in parts), 9),
        "unknown": sum(part["unknown"] for part in parts),
        "price_table": table,
        "parts": parts[:_MOST_PARTS],
    }
