"""``modelsplit requests``: what became of calls, from the running proxy or from its file."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

import orjson

from modelsplit_proxy.cli.command import JSON, Argument, Command
from modelsplit_proxy.cli.output import CommandError, ExitCode, talk
from modelsplit_proxy.cli.record_source import (
    LIMIT,
    STATE,
    AdminSource,
    opened,
    read_limit,
    show_kept,
    with_list,
)
from modelsplit_proxy.cli.requests_follow import LOOK_AT, Follower, follow
from modelsplit_proxy.config.settings import read_settings
from modelsplit_proxy.records import explain, request_log, trace
from modelsplit_proxy.records.query import WORDS, read_query
from modelsplit_proxy.records.query_error import QueryError
from modelsplit_proxy.records.reader import AmbiguousError, RecordReader
from modelsplit_proxy.runtime import local_time
from modelsplit_proxy.runtime.clock import SystemClock

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from modelsplit_proxy.config.settings import Address
    from modelsplit_proxy.runtime.clock import Clock

_EXAMPLES: Final = """\
examples:
  modelsplit requests                              the last calls
  modelsplit requests --role PLANNER --failed --since 1h
  modelsplit requests --follow --role PLANNER      as they end
  modelsplit requests 38e2f6f8                     one call, explained
  modelsplit requests --export --since 7d > trace.jsonl    to be replayed
  modelsplit requests --state /var/lib/modelsplit  without a running proxy
"""


_WHEN: Final = "30m, 1h, 7d ago, or a time, as 2026-11-23T01:30 here or 01:30Z"


@dataclass(frozen=True, slots=True)
class RequestsArguments:
    """What the command line asks. ``words``: those of ``query.WORDS`` that were said."""

    request_id: str | None
    words: dict[str, str]
    limit: int
    as_json: bool
    export: bool
    follow: bool = False


def read_arguments(args: argparse.Namespace) -> RequestsArguments:
    """Raises QueryError where the flags contradict each other."""
    values = {word: getattr(args, word) for word in WORDS if getattr(args, word)}
    words = {word: "1" if value is True else str(value) for word, value in values.items()}
    if args.id == "":
        raise QueryError("the ID is empty; give the first letters of one, or none for a list")
    if args.id is not None and (words or args.export or args.limit is not None):
        raise QueryError("an ID names one call: it goes with --json and --state only")
    if args.export and (args.json or args.limit is not None):
        raise QueryError("--export is JSON Lines of all calls; narrow it with --since or --role")
    if args.follow and (args.id is not None or args.export or args.state is not None):
        raise QueryError("--follow is of the running proxy; it goes with filters, --limit, --json")
    limit = read_limit(args.limit)
    return RequestsArguments(args.id, words, limit, args.json, args.export, args.follow)


def run(asked: RequestsArguments, admin: Address, state: Path | None, clock: Clock) -> int:
    """Ask, print, and return the exit code. Raises StoreError for a file that cannot be read."""
    source = _Proxy(admin) if state is None else _File(state, clock)
    told_by = admin if state is None else None
    try:
        if asked.request_id is not None:
            try:
                call = source.one(asked.request_id)
            except CommandError as error:
                raise with_list(error, "modelsplit requests", admin, state) from None
            show_kept(call, explain.text, as_json=asked.as_json, told_by=told_by)
        elif asked.follow:
            _follow(asked, source, admin)
        elif asked.export:
            for piece in source.export(asked.words):
                sys.stdout.buffer.write(piece)
        else:
            calls = source.latest(asked.words, asked.limit)
            show_kept(calls, request_log.listing, as_json=asked.as_json, told_by=told_by)
            if not calls and not asked.as_json:
                talk("no call matches" if asked.words else "no calls are kept")
    except (QueryError, AmbiguousError) as error:
        raise CommandError(str(error), ExitCode.USAGE) from None
    return ExitCode.OK


def _follow(asked: RequestsArguments, source: _Proxy | _File, admin: Address) -> None:
    """Tell calls as they end; KeyboardInterrupt, or a reader that leaves, ends it."""

    def tell(calls: Sequence[dict[str, Any]]) -> None:
        if asked.as_json:
            sys.stdout.writelines(orjson.dumps(call).decode() + "\n" for call in reversed(calls))
        else:
            show_kept([*calls], request_log.listing, as_json=False, told_by=admin)
        sys.stdout.flush()

    follower = Follower(lambda: source.latest(asked.words, LOOK_AT), tell)
    follow(follower, asked.limit, _wait)


def _wait(seconds: float) -> None:
    time.sleep(seconds)


def exported(
    words: dict[str, str], admin: Address, state: Path | None, clock: Clock
) -> Iterator[bytes]:
    """The trace of the calls that ``words`` ask for, in pieces, from where ``run`` asks."""
    source = _Proxy(admin) if state is None else _File(state, clock)
    return source.export(words)


class _Proxy:
    """The running proxy's admin listener."""

    def __init__(self, admin: Address) -> None:
        self._source = AdminSource(admin)

    def one(self, request_id: str) -> dict[str, Any]:
        fields: dict[str, Any] = self._source.json(f"/requests/{quote(request_id, safe='')}")
        return fields

    def latest(self, words: dict[str, str], limit: int) -> list[dict[str, Any]]:
        calls: list[dict[str, Any]] = self._source.json(
            f"/requests?{urlencode({**words, 'limit': limit})}"
        )
        return calls

    def export(self, words: dict[str, str]) -> Iterator[bytes]:
        return self._source.pieces(f"/requests?{urlencode({**words, 'format': 'trace'})}")


class _File:
    """The state file itself, with or without a proxy that writes it."""

    def __init__(self, state: Path, clock: Clock) -> None:
        self._clock = clock
        self._archive = RecordReader(opened(state, clock))

    def one(self, request_id: str) -> dict[str, Any]:
        fields = self._archive.find(request_id)
        if fields is None:
            raise CommandError(f'no call has the request id "{request_id[:128]}"', ExitCode.FAILED)
        return fields

    def latest(self, words: dict[str, str], limit: int) -> list[dict[str, Any]]:
        return self._archive.latest(read_query(words, self._clock.wall()), limit)

    def export(self, words: dict[str, str]) -> Iterator[bytes]:
        for page in self._archive.in_order(read_query(words, self._clock.wall())):
            yield trace.lines(page)


def _command(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    asked = read_arguments(args)
    # Only the flag asks for the file: the variable says where the proxy keeps it.
    admin = read_settings({"admin": args.admin}, environ).admin
    return run(asked, admin, args.state, SystemClock())


COMMAND: Final = Command(
    "requests",
    "what became of calls: a list, or one of them explained",
    "Calls in the order in which they came, the last one last, running ones among them; with ID, "
    "one call explained. "
    "Exit 0: found; 1: no such call; 2: wrong usage; 3: not running.",
    _command,
    (
        Argument("id", nargs="?", metavar="ID", help="one call: its id, or how it begins"),
        Argument("--role", help="calls of this role"),
        Argument("--model", help="calls that asked for or got this model"),
        Argument("--client", help="calls of this client"),
        Argument("--job", help="calls of this job"),
        Argument(
            "--outcome", help="calls that ended so: ok, client_gone, an error code; or running"
        ),
        Argument("--failed", action="store_true", help="calls that did not end well"),
        Argument("--since", type=local_time.zoned, metavar="WHEN", help=_WHEN),
        Argument(
            "--until", type=local_time.zoned, metavar="WHEN", help="calls that came before this"
        ),
        LIMIT,
        JSON,
        Argument(
            "--export", action="store_true", help="all of them as JSON Lines, in order of arrival"
        ),
        Argument("--follow", action="store_true", help="each call as it ends, until Ctrl-C"),
        STATE,
    ),
    settings=("admin",),
    example=_EXAMPLES,
)
