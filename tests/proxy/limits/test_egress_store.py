"""What has left for clouds, written down and read back."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace

from modelsplit_proxy.limits.egress_store import Leaving, Left, add, end, read
from modelsplit_proxy.protocol.stream_end import Usage
from modelsplit_proxy.storage.migrations import MIGRATIONS

ROW = Leaving("r1", 1, 10.0, "CLOUD", "kim", "escalation", "operator", 3, "a", "opus", 99, 2)


def test_a_request_that_left_and_what_became_of_it() -> None:
    with closing(sqlite3.connect(":memory:")) as db:
        for step in MIGRATIONS:
            for statement in step:
                db.execute(statement)
        other = replace(ROW, request_id="r2", wall=20.0, condition=None, approval=None)
        add(db, ROW)
        add(db, other)
        assert read(db) == [
            Left(ROW, None, None, None, False, None),
            Left(other, None, None, None, False, None),
        ]
        end(db, ROW, 200, Usage(12, 6, estimated=True), 0.5)
        assert read(db)[0] == Left(ROW, 200, 12, 6, True, 0.5)
        assert read(db, 15.0) == [Left(other, None, None, None, False, None)]
