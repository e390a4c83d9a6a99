"""Our own log, on stderr: one line per event, in the format that stdout has too.

Text begins with the time, JSON has it as ``ts``. Where stderr is the journal's, a line begins with
its priority instead (sd-daemon(3)), which the journal takes off, and text has no time, for the
journal has one.
"""

from __future__ import annotations

import json
import logging
import os
from typing import TYPE_CHECKING, Any, Final

from modelsplit_proxy.runtime.clock import rfc3339

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TextIO

# syslog(3): from which level on a line has which priority.
_PRIORITIES: Final = (
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
    (logging.NOTSET, 7),
)
_MINE: Final = "modelsplit"
# Who else speaks in this process, of a task or a connection that failed. Other lines of a library
# are none of an operator's business.
_LIBRARIES: Final = ("asyncio", "aiohttp")


def set_up(stream: TextIO, *, as_json: bool, journal: bool = False) -> None:
    """Have our own log written to ``stream``, and nowhere else; libraries' warnings in its form."""
    handler = logging.StreamHandler(stream)
    lines: logging.Formatter = JsonLines() if as_json else TextLines(timed=not journal)
    handler.setFormatter(_Journal(lines) if journal else lines)
    for name in (_MINE, *_LIBRARIES):
        log = logging.getLogger(name)
        log.handlers = [handler]
        log.setLevel(logging.INFO if name == _MINE else logging.WARNING)
        log.propagate = False


def is_journal(environ: Mapping[str, str], fd: int) -> bool:
    """Whether what is written to the descriptor comes to systemd's journal."""
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class TextLines(logging.Formatter):
    """For people. A level other than INFO is named. ``timed``: with the time in front."""

    def __init__(self, *, timed: bool) -> None:
        super().__init__()
        self._timed = timed

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if record.levelno > logging.INFO:
            text = f"{record.levelname.lower()}: {text}"
        text = f"{_MINE}: {text}"
        return f"{rfc3339(record.created)} {text}" if self._timed else text


class JsonLines(logging.Formatter):
    """For machines: an object a line, its ``event`` as in the log of calls."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "ts": rfc3339(record.created),
            "event": "log",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields)


class _Journal(logging.Formatter):
    """Each line with its priority, those of a traceback too."""

    def __init__(self, lines: logging.Formatter) -> None:
        super().__init__()
        self._lines = lines

    def format(self, record: logging.LogRecord) -> str:
        priority = next(number for level, number in _PRIORITIES if record.levelno >= level)
        lines = self._lines.format(record).split("\n")
        return "\n".join(f"<{priority}>{line}" for line in lines)
