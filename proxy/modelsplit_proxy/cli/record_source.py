"""Where commands read what is kept: from the running proxy, or from its state file."""

from __future__ import annotations

import http.client
import os
import shlex
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import orjson

from modelsplit_policy.hints import asking
from modelsplit_proxy.cli import admin_client, state_access
from modelsplit_proxy.cli.command import Argument
from modelsplit_proxy.cli.output import CommandError, ExitCode, show_json
from modelsplit_proxy.config.settings import other_than_default
from modelsplit_proxy.records.query_error import QueryError
from modelsplit_proxy.runtime.disk_trouble import explained
from modelsplit_proxy.storage import state_file
from modelsplit_proxy.storage.migrations import SCHEMA_VERSION
from modelsplit_proxy.storage.state_file import FILE_NAME, NoStateError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from modelsplit_proxy.config.settings import Address
    from modelsplit_proxy.records.reader import Read
    from modelsplit_proxy.runtime.clock import Clock

Value = TypeVar("Value")

# A question to a file of a million calls may take a while.
_TIMEOUT_S: Final = 30.0
_WITHOUT: Final = "; without it, --state DIR reads its file"
_LIMIT: Final = 50
_LIMIT_MAX: Final = 1000

LIMIT: Final = Argument(
    "--limit",
    type=int,
    help=f"so many of the last ones (default {_LIMIT}, at most {_LIMIT_MAX})",
)
STATE: Final = Argument(
    "--state", type=Path, metavar="DIR", help="read the state file there, without the proxy"
)


def read_limit(limit: int | None) -> int:
    """How many are listed. Raises QueryError."""
    limit = _LIMIT if limit is None else limit
    if not 1 <= limit <= _LIMIT_MAX:
        raise QueryError(f"--limit {limit} is not between 1 and {_LIMIT_MAX}")
    return limit


def show_kept(
    value: Value, text: Callable[[Value], str], *, as_json: bool, told_by: Address | None
) -> None:
    """Print ``value`` as JSON, or as ``text`` has it.

    ``told_by``: the proxy whose fields it has, maybe of another version; None: they are ours.
    """
    if as_json:
        show_json(value)
        return
    with nullcontext() if told_by is None else admin_client.known_fields(told_by):
        words = text(value)
    sys.stdout.write(words)


def with_list(
    error: CommandError, command: str, admin: Address, state: Path | None
) -> CommandError:
    """The error of who asked for one thing that is not there, with the command that lists them.

    Any other error is left as it is.
    """
    if error.code != ExitCode.FAILED:
        return error
    typed = asking(command, other_than_default(admin))
    if state is not None:
        typed = f"{command} --state {shlex.quote(str(state))}"
    return CommandError(f"{error}; see the last ones with `{typed}`", error.code)


class AdminSource:
    """The running proxy's admin listener. Everything raises CommandError."""

    def __init__(self, admin: Address) -> None:
        self._admin = admin

    def json(self, target: str) -> Any:
        """One answer."""
        connection = self._ask(target)
        try:
            return orjson.loads(self._answer(connection).read())
        except TimeoutError as error:
            raise self._unanswered(error) from None
        except (OSError, http.client.HTTPException, orjson.JSONDecodeError) as error:
            text = f"http://{self._admin} did not answer as we do: {error}"
            raise CommandError(f"{text}{admin_client.STRANGER}", ExitCode.NOT_RUNNING) from None
        finally:
            connection.close()

    def pieces(self, target: str) -> Iterator[bytes]:
        """One answer as it comes."""
        connection = self._ask(target)
        try:
            response = self._answer(connection)
            while piece := response.read(65536):
                yield piece
        except (OSError, http.client.HTTPException) as error:
            raise CommandError(f"the trace broke off: {error}", ExitCode.FAILED) from None
        finally:
            connection.close()

    def _ask(self, target: str) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(
            self._admin.host, self._admin.port, timeout=_TIMEOUT_S
        )
        try:
            connection.request("GET", target)
            admin_client.await_sign(connection, self._admin)
        except OSError as error:
            connection.close()
            raise self._unanswered(error) from None
        except admin_client.NotRunningError as error:
            connection.close()
            raise CommandError(f"{error}{_WITHOUT}", ExitCode.NOT_RUNNING) from None
        return connection

    def _unanswered(self, error: Exception) -> CommandError:
        text = admin_client.nobody_answers(self._admin, error)
        return CommandError(f"{text}{_WITHOUT}", ExitCode.NOT_RUNNING)

    def _answer(self, connection: http.client.HTTPConnection) -> http.client.HTTPResponse:
        response = connection.getresponse()
        if response.status == http.client.OK:
            return response
        try:
            error = orjson.loads(response.read())["error"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            text = f"http://{self._admin} answered {response.status}, not as we do"
            raise CommandError(f"{text}{admin_client.STRANGER}", ExitCode.NOT_RUNNING) from None
        code = ExitCode.USAGE if response.status == http.client.BAD_REQUEST else ExitCode.FAILED
        raise CommandError(error, code)


def opened(state: Path, clock: Clock) -> Read:
    """What reads the state file there, a directory or the file itself. Raises StoreError."""
    try:
        path = state / FILE_NAME if state.is_dir() else state
        exists = path.is_file()
        readable = os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids)
    except PermissionError as error:  # a directory that only its owner may look into
        raise StoreError(state_access.not_ours(state / FILE_NAME)) from error
    except OSError as error:
        text = f"the state file in {state} cannot be read: {explained(error, state)}"
        raise StoreError(text) from error
    if not exists:
        raise NoStateError(f"no state file there: {path}; --state names the one of `serve`")
    if not readable:
        raise StoreError(state_access.not_ours(path))
    read = partial(state_file.read, path, clock)
    [(version,)] = read("PRAGMA user_version", ())
    if version != SCHEMA_VERSION:
        raise StoreError(state_access.other_schema(path, version))
    return read
