"""Our own log: one line per event, timed, in text or as JSON, with priorities for the journal."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import tempfile
from typing import TYPE_CHECKING

import pytest

from modelsplit_proxy.runtime import process_log

if TYPE_CHECKING:
    from collections.abc import Iterator

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """The process's own, given back as it was."""
    logs = [logging.getLogger(name) for name in ("modelsplit", "asyncio", "aiohttp")]
    before = [(log, log.handlers, log.level, log.propagate) for log in logs]
    yield logs[0]
    for log, handlers, level, propagate in before:
        log.handlers, log.propagate = handlers, propagate
        log.setLevel(level)


def written(logger: logging.Logger, *, as_json: bool, journal: bool = False) -> list[str]:
    stream = io.StringIO()
    process_log.set_up(stream, as_json=as_json, journal=journal)
    logger.info("fine: %d", 1)
    logger.warning("hm")
    logger.debug("not said")
    try:
        int("why")
    except ValueError:
        logger.exception("it broke")
    return stream.getvalue().splitlines()


def test_text_begins_with_the_time_and_names_a_level_where_it_matters(
    logger: logging.Logger,
) -> None:
    fine, hm, broke, *traceback = written(logger, as_json=False)
    assert re.fullmatch(rf"{STAMP} modelsplit: fine: 1", fine)
    assert re.fullmatch(rf"{STAMP} modelsplit: warning: hm", hm)
    assert re.fullmatch(rf"{STAMP} modelsplit: error: it broke", broke)
    assert traceback[-1].startswith("ValueError: ")


def test_json_is_an_object_a_line_a_traceback_included(logger: logging.Logger) -> None:
    fine, hm, broke = map(json.loads, written(logger, as_json=True))
    assert re.fullmatch(STAMP, fine.pop("ts"))
    assert fine == {"event": "log", "level": "info", "message": "fine: 1"}
    assert (hm["level"], hm["message"]) == ("warning", "hm")
    assert "\nValueError: " in broke["traceback"]


@pytest.mark.parametrize("as_json", [True, False], ids=["json", "text"])
def test_the_journal_is_told_priorities_line_by_line(
    logger: logging.Logger, *, as_json: bool
) -> None:
    lines = written(logger, as_json=as_json, journal=True)
    assert [line[:3] for line in lines[:3]] == ["<6>", "<4>", "<3>"]
    assert {line[:3] for line in lines[2:]} == {"<3>"}
    if not as_json:
        assert lines[:2] == ["<6>modelsplit: fine: 1", "<4>modelsplit: warning: hm"]


def test_whether_a_stream_is_the_journals() -> None:
    with tempfile.TemporaryFile("w") as stream:
        fd = stream.fileno()
        status = os.fstat(fd)
        told = f"{status.st_dev}:{status.st_ino}"
        assert process_log.is_journal({"JOURNAL_STREAM": told}, fd)
        assert not process_log.is_journal({"JOURNAL_STREAM": "1:2"}, fd)
        assert not process_log.is_journal({}, fd)
    assert not process_log.is_journal({"JOURNAL_STREAM": told}, 10**6), "not open"


@pytest.mark.parametrize("library", ["asyncio", "aiohttp.server"])
def test_what_a_library_warns_of_has_the_same_form(logger: logging.Logger, library: str) -> None:
    del logger
    stream = io.StringIO()
    process_log.set_up(stream, as_json=False)
    logging.getLogger(library).error("a request handler failed")
    logging.getLogger(library).info("none of an operator's business")
    assert re.fullmatch(
        rf"{STAMP} modelsplit: error: a request handler failed\n", stream.getvalue()
    )
