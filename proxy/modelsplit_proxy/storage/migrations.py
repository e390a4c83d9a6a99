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

# One row per call and per attempt, with what queries ask for in columns and the rest in
# ``more``; one row per job, summed up as its calls end. ``…_us``: microseconds; those of an
# attempt are since its call came. Rows of the first table are taken over, oldest first.
_RECORDS: Final = (
    "ALTER TABLE calls RENAME TO first_calls",
    """
    CREATE TABLE calls (
        id INTEGER PRIMARY KEY,
        started_us INTEGER NOT NULL,
        total_us INTEGER NOT NULL,
        wait_us INTEGER,
        llm_us INTEGER,
        first_us INTEGER,
        load_us INTEGER,
        request_id TEXT NOT NULL,
        job_id TEXT,
        client TEXT,
        route TEXT,
        dialect TEXT,
        role TEXT,
        context TEXT,
        provider TEXT,
        requested_model TEXT,
        model TEXT,
        route_reason TEXT,
        outcome TEXT NOT NULL,
        reason TEXT,
        status INTEGER,
        attempts INTEGER,
        fallback INTEGER,
        stream INTEGER,
        prompt_tokens INTEGER,
        output_tokens INTEGER,
        finish_reason TEXT,
        cost_usd REAL,
        experiment TEXT,
        variant TEXT,
        more TEXT
    )
    """,
    """
    INSERT INTO calls (
        started_us, total_us, wait_us, llm_us, first_us, load_us, request_id, job_id, client,
        route, dialect, role, context, provider, requested_model, model, route_reason, outcome,
        reason, status, attempts, fallback, stream, prompt_tokens, output_tokens, finish_reason,
        more
    )
    SELECT
        CAST(ended_at * 1e6 AS INTEGER)
            - CAST(coalesce(json_extract(record, '$.job_e2e_latency_ms'), 0) * 1e3 AS INTEGER),
        CAST(coalesce(json_extract(record, '$.job_e2e_latency_ms'), 0) * 1e3 AS INTEGER),
        CAST(json_extract(record, '$.llm_queue_wait_ms') * 1e3 AS INTEGER),
        CAST(json_extract(record, '$.llm_latency_ms') * 1e3 AS INTEGER),
        CAST(json_extract(record, '$.ttfb_ms') * 1e3 AS INTEGER),
        CAST(json_extract(record, '$.load_ms') * 1e3 AS INTEGER),
        request_id,
        json_extract(record, '$.job_id'),
        json_extract(record, '$.client'),
        json_extract(record, '$.route'),
        json_extract(record, '$.dialect'),
        role,
        json_extract(record, '$.llm_context'),
        json_extract(record, '$.llm_provider'),
        json_extract(record, '$.requested_model'),
        json_extract(record, '$.llm_model'),
        json_extract(record, '$.route_reason'),
        outcome,
        json_extract(record, '$.reason'),
        json_extract(record, '$.status'),
        json_extract(record, '$.llm_attempt'),
        json_extract(record, '$.fallback_used'),
        json_extract(record, '$.stream'),
        json_extract(record, '$.prompt_tokens'),
        json_extract(record, '$.output_tokens'),
        json_extract(record, '$.finish_reason'),
        json_remove(
            record, '$.ts', '$.started_at', '$.planner_latency_ms', '$.job_e2e_latency_ms',
            '$.llm_queue_wait_ms', '$.llm_latency_ms', '$.ttfb_ms', '$.load_ms', '$.request_id',
            '$.job_id', '$.client', '$.route', '$.dialect', '$.llm_role', '$.llm_context',
            '$.llm_provider', '$.requested_model', '$.llm_model', '$.route_reason', '$.outcome',
            '$.reason', '$.status', '$.llm_attempt', '$.fallback_used', '$.stream',
            '$.prompt_tokens', '$.output_tokens', '$.finish_reason'
        )
    FROM first_calls ORDER BY ended_at
    """,
    "DROP TABLE first_calls",
    "CREATE INDEX calls_by_request ON calls (request_id)",
    "CREATE INDEX calls_by_start ON calls (started_us)",
    "CREATE INDEX calls_by_job ON calls (job_id) WHERE job_id IS NOT NULL",
    """
    CREATE TABLE attempts (
        call_id INTEGER NOT NULL,
        number INTEGER NOT NULL,
        model TEXT,
        outcome TEXT NOT NULL,
        reason TEXT,
        upstream_status INTEGER,
        ahead INTEGER,
        asked_us INTEGER,
        seated_us INTEGER,
        dispatched_us INTEGER,
        first_us INTEGER,
        ended_us INTEGER,
        load_us INTEGER,
        prompt_us INTEGER,
        eval_us INTEGER,
        prompt_tokens INTEGER,
        output_tokens INTEGER,
        cost_usd REAL,
        more TEXT,
        PRIMARY KEY (call_id, number)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE jobs (
        job_id TEXT PRIMARY KEY,
        first_us INTEGER NOT NULL,
        last_us INTEGER NOT NULL,
        calls INTEGER NOT NULL,
        failures INTEGER NOT NULL,
        planner INTEGER NOT NULL,
        executor INTEGER NOT NULL,
        heavy INTEGER NOT NULL,
        cloud INTEGER NOT NULL,
        chat INTEGER NOT NULL,
        prompt_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL,
        cost_usd REAL NOT NULL,
        cost_unknown INTEGER NOT NULL,
        more TEXT
    ) WITHOUT ROWID
    """,
    "CREATE INDEX jobs_by_end ON jobs (last_us)",
)

# What the limits stood at when an attempt got its seat.
_SEATS: Final = ("ALTER TABLE attempts ADD COLUMN seats TEXT",)

# Charges to budgets (``at``: budget time), what people changed, which nobody changes again,
# and the clock, with the process that keeps them (``budget_store``).
_BUDGETS: Final = (
    """
    CREATE TABLE budget_charges (
        id INTEGER PRIMARY KEY,
        at REAL NOT NULL,
        model TEXT NOT NULL,
        role TEXT NOT NULL,
        provider TEXT NOT NULL,
        nano_usd INTEGER NOT NULL,
        approval INTEGER,
        request_id TEXT NOT NULL,
        keeper TEXT NOT NULL,
        settled INTEGER NOT NULL DEFAULT 0
    )
    """,
    "CREATE INDEX budget_charges_by_time ON budget_charges (at)",
    """
    CREATE INDEX budget_charges_by_approval ON budget_charges (approval, nano_usd)
    WHERE approval NOT NULL
    """,
    """
    CREATE TABLE budget_changes (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at REAL NOT NULL,
        wall REAL NOT NULL,
        action TEXT NOT NULL,
        by_whom TEXT NOT NULL,
        reason TEXT NOT NULL,
        nano_usd INTEGER NOT NULL,
        until REAL NOT NULL,
        target INTEGER
    )
    """,
    """
    CREATE TRIGGER budget_changes_stay_as_they_are BEFORE UPDATE ON budget_changes
    BEGIN SELECT raise(ABORT, 'the history of budgets is only added to'); END
    """,
    """
    CREATE TRIGGER budget_changes_stay BEFORE DELETE ON budget_changes
    BEGIN SELECT raise(ABORT, 'the history of budgets is only added to'); END
    """,
    """
    CREATE TABLE budget_clock (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        boot TEXT,
        since_boot REAL NOT NULL,
        wall REAL NOT NULL,
        ledger REAL NOT NULL,
        keeper TEXT NOT NULL
    )
    """,
)

# Reports on experiments read the calls of one; other calls are not in this index.
_TRIALS: Final = (
    """
    CREATE INDEX calls_by_experiment ON calls (experiment, started_us)
    WHERE experiment IS NOT NULL
    """,
)

# The wait inside the upstream, of a call's last attempt and of each.
_UPSTREAM_WAIT: Final = (
    "ALTER TABLE calls ADD COLUMN upstream_wait_us INTEGER",
    "ALTER TABLE attempts ADD COLUMN upstream_wait_us INTEGER",
)

# What was learned of an upstream at one version of Ollama, and of its models by their digests
# (empty: of the host itself); ``value`` as ``modelsplit_policy.learned`` writes it.
_LEARNED: Final = (
    """
    CREATE TABLE learned (
        upstream TEXT NOT NULL,
        version TEXT NOT NULL,
        digest TEXT NOT NULL,
        at REAL NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (upstream, version, digest)
    ) WITHOUT ROWID
    """,
)

# What clients tell of their jobs (start, finish and its verdict), how each ended, and the tools
# they ran; what a call was for. ``state`` and ``ended_us`` are written when a job has ended.
# Jobs of before were never finished.
_JOBS: Final = (
    "ALTER TABLE calls ADD COLUMN purpose TEXT",
    "ALTER TABLE jobs ADD COLUMN state TEXT NOT NULL DEFAULT 'open'",
    "ALTER TABLE jobs ADD COLUMN started_us INTEGER",
    "ALTER TABLE jobs ADD COLUMN finished_us INTEGER",
    "ALTER TABLE jobs ADD COLUMN verdict TEXT",
    "ALTER TABLE jobs ADD COLUMN why TEXT",
    "ALTER TABLE jobs ADD COLUMN ended_us INTEGER",
    "ALTER TABLE jobs ADD COLUMN executor_calls INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE jobs ADD COLUMN tools INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE jobs ADD COLUMN late INTEGER NOT NULL DEFAULT 0",
    """
    UPDATE jobs SET executor_calls = (
        SELECT count(*) FROM calls WHERE calls.job_id = jobs.job_id AND context = 'EXECUTOR'
    )
    """,
    """
    UPDATE jobs SET state = 'expired', ended_us = last_us
    WHERE last_us < (CAST(strftime('%s', 'now') AS INTEGER) - 3600) * 1000000
    """,
    "CREATE INDEX jobs_open ON jobs (last_us) WHERE state = 'open'",
    "CREATE INDEX jobs_by_ended ON jobs (ended_us) WHERE ended_us NOT NULL",
    """
    CREATE TABLE job_tools (
        id INTEGER PRIMARY KEY,
        job_id TEXT NOT NULL,
        at_us INTEGER NOT NULL,
        duration_us INTEGER NOT NULL,
        name TEXT NOT NULL,
        ok INTEGER NOT NULL
    )
    """,
    "CREATE INDEX job_tools_by_job ON job_tools (job_id)",
    "CREATE INDEX job_tools_by_time ON job_tools (at_us)",
)

# What the process says of itself once a minute, what people say of answers, and what objectives
# are compared with (``value`` as ``records/slo_store`` writes it).
_OBJECTIVES: Final = (
    """
    CREATE TABLE heartbeats (
        minute INTEGER PRIMARY KEY,
        at_us INTEGER NOT NULL,
        run TEXT NOT NULL,
        drained INTEGER NOT NULL,
        rss_bytes INTEGER,
        descriptors INTEGER,
        tasks INTEGER,
        state_bytes INTEGER,
        state_limit_bytes INTEGER,
        lag_p99_us INTEGER
    )
    """,
    """
    CREATE TABLE reviews (
        request_id TEXT PRIMARY KEY,
        called_us INTEGER NOT NULL,
        at_us INTEGER NOT NULL,
        opinion TEXT NOT NULL,
        purpose TEXT
    ) WITHOUT ROWID
    """,
    "CREATE INDEX reviews_by_call ON reviews (called_us)",
    "CREATE TABLE baselines (id INTEGER PRIMARY KEY, at_us INTEGER NOT NULL, value TEXT NOT NULL)",
)

# Whether a call asked for JSON or a schema; of calls of before it is not known.
_SCHEMA_ASKED: Final = ("ALTER TABLE calls ADD COLUMN schema_asked INTEGER",)

# Which modelsplits count budgets together, this one too (``is_self``), and when each was last
# heard of, by the wall clock.
_SHARED: Final = (
    """
    CREATE TABLE shared_members (
        member TEXT PRIMARY KEY,
        is_self INTEGER NOT NULL,
        seen_at REAL NOT NULL
    ) WITHOUT ROWID
    """,
)

# What has left for clouds; the end of a row is written when the call has ended.
_EGRESS: Final = (
    """
    CREATE TABLE egress (
        id INTEGER PRIMARY KEY,
        request_id TEXT NOT NULL,
        attempt INTEGER NOT NULL,
        wall REAL NOT NULL,
        role TEXT NOT NULL,
        client TEXT NOT NULL,
        why TEXT NOT NULL,
        condition TEXT,
        approval INTEGER,
        provider TEXT NOT NULL,
        model TEXT NOT NULL,
        bytes INTEGER NOT NULL,
        redacted INTEGER NOT NULL,
        status INTEGER,
        prompt_tokens INTEGER,
        output_tokens INTEGER,
        estimated INTEGER NOT NULL DEFAULT 0,
        usd REAL
    )
    """,
    "CREATE INDEX egress_by_time ON egress (wall)",
)

# By which other machines know what people have allowed.
_SHARED_CHANGES: Final = (
    "ALTER TABLE budget_changes ADD COLUMN uid TEXT",
    "UPDATE budget_changes SET uid = lower(hex(randomblob(8)))",
    "CREATE UNIQUE INDEX budget_changes_by_uid ON budget_changes (uid)",
)

# By which Redis tells a restart from a second process with a copy of the file: the tokens of the
# last starts, newest last, and the greatest number that a charge ever had. Of this one alone.
_SHARED_OWNER: Final = (
    "ALTER TABLE shared_members ADD COLUMN tokens TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE shared_members ADD COLUMN last_charge INTEGER NOT NULL DEFAULT 0",
)

# Whether a call left for a cloud is looked up for each that failed there.
_EGRESS_BY_REQUEST: Final = ("CREATE INDEX egress_by_request ON egress (request_id)",)

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    _FIRST_CALLS,
    _FACTS,
    _RECORDS,
    _SEATS,
    _BUDGETS,
    _TRIALS,
    _UPSTREAM_WAIT,
    _LEARNED,
    _JOBS,
    _OBJECTIVES,
    _SCHEMA_ASKED,
    _SHARED,
    _EGRESS,
    _SHARED_CHANGES,
    _SHARED_OWNER,
    _EGRESS_BY_REQUEST,
)
SCHEMA_VERSION: Final = len(MIGRATIONS)
