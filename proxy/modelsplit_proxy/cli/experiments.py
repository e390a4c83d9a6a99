"""``modelsplit experiments``: what the arms of an experiment have shown so far."""

from __future__ import annotations

import http.client
import sys
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

import orjson

from modelsplit_proxy.cli import admin_client
from modelsplit_proxy.records import experiment_report

if TYPE_CHECKING:
    from modelsplit_proxy.config.settings import Address

# As `requests` has them.
UNKNOWN: Final = 1
USAGE: Final = 2
NOT_RUNNING: Final = 3
# Many calls are read, sorted and compared, for several experiments.
_TIMEOUT_S: Final = 60.0


def run(admin: Address, name: str | None, since: str | None, *, as_json: bool) -> int:
    """Ask the admin listener and print the report; returns the exit code."""
    asked = {"name": name, "since": since}
    query = urlencode({key: value for key, value in asked.items() if value is not None})
    try:
        status, told = admin_client.get(admin, f"/experiments?{query}", _TIMEOUT_S)
    except admin_client.NotRunningError as error:
        sys.stderr.write(f"modelsplit: {error}\n")
        return NOT_RUNNING
    if status != 200:
        sys.stderr.write(f"modelsplit: {told.get('error', f'the answer was a {status}')}\n")
        return USAGE if status == http.client.BAD_REQUEST else UNKNOWN
    if as_json:
        sys.stdout.write(orjson.dumps(told, option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        sys.stdout.write("\n".join(experiment_report.lines(told)) + "\n")
    return 0
