"""The state file's tables, as the steps that made them: one step per schema version.

Step N takes a file from version N to version N + 1 and is never edited once released: a
file of any age is led through all the steps it has not seen. Each runs in a transaction of
its own together with its version number, so a process killed half-way starts it again.
"""

from __future__ import annotations

from typing import Final

_FIRST_CALLS: Final = (
    """
    CREATE TABLE IF NOT EXISTS calls (
        request_id TEXT NOT NULL,
        ended_at REAL NOT NULL,
        role TEXT,
        outcome TEXT NOT NULL,
        record TEXT NOT NULL
    )
    """,
    "CREATE INDEX IF NOT EXISTS calls_by_id ON calls (request_id)",
    "CREATE INDEX IF NOT EXISTS calls_by_time ON calls (ended_at)",
)

# What is known of the file itself, such as when a damaged one was set aside.
_FACTS: Final = ("CREATE TABLE facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID",)

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (_FIRST_CALLS, _FACTS)
SCHEMA_VERSION: Final = len(MIGRATIONS)
