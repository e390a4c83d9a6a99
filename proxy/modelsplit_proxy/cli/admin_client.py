"""What commands ask of a running proxy: one request on the admin port."""

from __future__ import annotations

import http.client
import select
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import orjson

from modelsplit_policy.hints import asking
from modelsplit_proxy.cli.output import CommandError, ExitCode
from modelsplit_proxy.config.settings import other_than_default

if TYPE_CHECKING:
    from collections.abc import Iterator

    from modelsplit_proxy.config.settings import Address

_TIMEOUT_S = 5.0
# Said of whoever else answers, such as the proxy's own port, which passes this to Ollama.
STRANGER = "; is this the admin port?"


class NotRunningError(Exception):
    """Nothing that is ours answers there. The text says what was tried."""


def get(admin: Address, path: str, timeout_s: float | None = None) -> tuple[int, dict[str, Any]]:
    """The status and the JSON object of one answer; NotRunningError if there is none.

    ``timeout_s``: for the connection and for each read; None: five seconds.
    """
    status, body = _answer(admin, path, timeout_s)
    answer = _parsed(body)
    if not isinstance(answer, dict):
        raise _stranger(admin, path, status)
    return status, answer


def post(admin: Address, path: str) -> tuple[int, dict[str, Any]]:
    """The same of a POST without a body."""
    status, body = _answer(admin, path, None, "POST")
    answer = _parsed(body)
    if not isinstance(answer, dict):
        raise _stranger(admin, path, status)
    return status, answer


def get_list(admin: Address, path: str) -> list[dict[str, Any]]:
    """The JSON list of one answer; NotRunningError if there is none."""
    status, body = _answer(admin, path, None)
    answer = _parsed(body)
    if status != 200 or not isinstance(answer, list):
        raise _stranger(admin, path, status)
    return answer


def get_text(admin: Address, path: str) -> str:
    """One answer as text, or what its refusal says; NotRunningError if there is none."""
    status, body = _answer(admin, path, None)
    if status == 200:
        return body.decode(errors="replace")
    answer = _parsed(body)
    if not isinstance(answer, dict) or "error" not in answer:
        raise _stranger(admin, path, status)
    return str(answer["error"])


def _answer(
    admin: Address, path: str, timeout_s: float | None, method: str = "GET"
) -> tuple[int, bytes]:
    bound_s = _TIMEOUT_S if timeout_s is None else timeout_s
    connection = http.client.HTTPConnection(admin.host, admin.port, timeout=bound_s)
    try:
        connection.request(method, path)
        if bound_s > _TIMEOUT_S:
            await_sign(connection, admin)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        raise NotRunningError(nobody_answers(admin, error)) from error
    finally:
        connection.close()


def _parsed(body: bytes) -> object:
    try:
        answer: object = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return answer


def _stranger(admin: Address, path: str, status: int) -> NotRunningError:
    where = path.partition("?")[0]
    return NotRunningError(f"http://{admin}{where} answered {status}, not as we do{STRANGER}")


def await_sign(connection: http.client.HTTPConnection, admin: Address) -> None:
    """Wait for an answer that may take long; NotRunningError if nothing else is answered either."""
    readable, _, _ = select.select([connection.sock], [], [], _TIMEOUT_S)
    if not readable:
        get(admin, "/healthz")


def nobody_answers(admin: Address, error: Exception) -> str:
    """Why a question had no answer: nobody is there, or somebody who says nothing."""
    where = f"http://{admin}"
    if isinstance(error, ConnectionRefusedError):
        serve = asking("modelsplit serve", other_than_default(admin))
        start = f"start it: `systemctl start modelsplit`, or `{serve}`"
        return f"nobody listens at {where}: modelsplit is not running there; {start}"
    if isinstance(error, TimeoutError):
        restart = "it hangs, or is stopped; try systemctl restart modelsplit"
        return f"whoever listens at {where} does not answer: {restart}"
    return f"nothing answers at {where} ({why(error)}); is `modelsplit serve` running?"


def why(error: Exception) -> str:
    """What was wrong with a connection, as the system says it, without its number."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


@contextmanager
def known_fields(admin: Address) -> Iterator[None]:
    """Tell what the proxy there answered; CommandError where it has other fields than ours.

    That is one of another version: a package was replaced, and the process not yet.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError) as error:
        text = (
            f"the modelsplit at http://{admin} is of another version than this command: what it "
            "answers cannot be told here; restart it, or ask with --json"
        )
        raise CommandError(text, ExitCode.NOT_RUNNING) from error
