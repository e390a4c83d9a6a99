"""The Redis where budgets are counted together: its connections, its scripts, its words.

No question takes longer than the link's timeout, however the server behaves; whatever goes wrong
is one of ``ERRORS``.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from shlex import quote
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from urllib.parse import unquote, urlsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterError,
    InvalidResponse,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from modelsplit_proxy.limits import shared_scripts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping

ERRORS: Final = (RedisError, OSError, TimeoutError)
CONNECTIONS: Final = 16
_PORT: Final = 6379
_GRACE_S: Final = 0.03
# In so many turns of the loop what has come is read, and whoever waits for it goes on.
_GRACE_TURNS: Final = 10
_ERROR_MAX: Final = 120
# What reading an answer raises that makes no sense: the client's parser does too.
_NONSENSE: Final = (
    *(ValueError, TypeError, LookupError, AttributeError, EOFError, RecursionError),
    InvalidResponse,
)
# How a server is configured that keeps whatever it has said yes to.
_WANTED: Final = MappingProxyType(
    {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
)
# Where the server says more of an error.
_LOOKS: Final[Mapping[type[BaseException], str]] = MappingProxyType(
    {
        NoPermissionError: "acl log 5",
        ReadOnlyError: "info replication",
        MasterDownError: "info replication",
        BusyLoadingError: "info persistence",
        OutOfMemoryError: "info memory",
        AskError: "cluster nodes",
        ClusterError: "cluster info",
    }
)
_SCRIPTS: Final = (
    shared_scripts.COUNT,
    shared_scripts.SETTLE,
    shared_scripts.BEGIN,
    shared_scripts.CLAIM,
    shared_scripts.SEED,
    shared_scripts.HERE,
    shared_scripts.TELL,
)

T = TypeVar("T")


class SharedLink:
    """The server as one proxy asks it."""

    def __init__(self, url: str, prefix: str, timeout_s: float) -> None:
        """``url``: ``redis://``, ``rediss://`` or ``unix://``; ValueError if it is none of them.

        ``timeout_s``: the longest that one question takes.
        """
        self.redis = Redis.from_url(
            url,
            max_connections=CONNECTIONS,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
        )
        self.timeout_s = timeout_s
        # All keys in one slot of a cluster.
        self._prefix = f"{{{prefix}}}"
        self._cli, self._user = _cli(url), urlsplit(url).username
        self.ping = f"{self._cli} ping"
        self._scripts = {text: self.redis.register_script(text) for text in _SCRIPTS}

    def __repr__(self) -> str:
        return f"<SharedLink {self.ping}>"

    def step(self, error: BaseException) -> str:
        """The command that shows why; no password is in it."""
        # What was said while connecting is the cause of an error without a kind.
        errors = (error, error.__cause__)
        if any(isinstance(each, AuthenticationError) for each in errors):
            user = f" --user {quote(unquote(self._user))}" if self._user else ""
            return f"{self._cli}{user} --askpass ping"
        if any(isinstance(each, ssl.SSLCertVerificationError) for each in errors):
            return f"{self._cli} --cacert FILE ping"
        looks = (_LOOKS[kind] for kind in _LOOKS if any(isinstance(each, kind) for each in errors))
        return f"{self._cli} {next(looks, 'ping')}"

    def no_matter(self) -> str:
        """The command that says: what those have counted who do not come back is no matter."""
        return f"{self._cli} del {quote(self.key('expected'))}"

    def key(self, name: str) -> str:
        return f"{self._prefix}:{name}"

    def keys(self, *names: str) -> list[str]:
        return [self.key(name) for name in names]

    async def run(self, script: str, keys: list[str], arguments: list[Any]) -> Any:
        """One step of ``shared_scripts``. Raises one of ``ERRORS``."""
        return await self._soon(self._scripts[script](keys=keys, args=arguments))

    async def run_id(self) -> str:
        """Which start of the server it is."""
        info = await self._soon(self.redis.info("server"))
        with understood():
            return str(info["run_id"])

    async def field(self, key: str, name: str) -> str:
        """One field of a hash; empty if there is none."""
        value = self._soon(cast("Awaitable[str | None]", self.redis.hget(self.key(key), name)))
        return await value or ""

    async def forget(self, key: str, fields: list[str], keys: list[str]) -> None:
        """Delete fields of a hash, and keys."""
        if fields:
            await self._soon(self.redis.hdel(self.key(key), *fields))
        if keys:
            await self._soon(self.redis.delete(*self.keys(*keys)))

    async def flaws(self) -> list[str]:
        """What makes it lose what it has said yes to, as far as it tells how it is configured."""
        config = await self._config()
        if config is None:
            return []
        return [f"{name} {config[name]}" for name in _WANTED if config.get(name) != _WANTED[name]]

    async def keeps_all(self) -> bool:
        """Whether it still has whatever it has said yes to; False if it does not say.

        It has, where it writes all to its disk before, unless it was another's replica: what the
        other said yes to last may never have come here.
        """
        if await self._config() != _WANTED:
            return False
        info = await self._soon(self.redis.info("replication"))
        with understood():
            was_replica = str(info["master_replid2"]).strip("0") != ""
            return bool(info["role"] == "master" and not was_replica)

    async def _config(self) -> dict[str, str] | None:
        """The settings that matter; None: it does not tell us."""
        try:
            config = await self._soon(self.redis.config_get(*_WANTED))
        except ResponseError:
            return None
        with understood():
            return {str(name): str(value) for name, value in dict(config).items()}

    async def close(self) -> None:
        await self.redis.aclose()

    async def _soon(self, answer: Awaitable[T]) -> T:
        """All of it within the bound: a server that answers a byte at a time, too."""
        async with within(self.timeout_s):
            with understood():
                return await answer


@contextlib.contextmanager
def understood() -> Iterator[None]:
    """One of ``ERRORS`` for an answer that makes no sense."""
    try:
        yield
    except OSError:
        # A certificate that cannot be trusted is a ValueError too.
        raise
    except _NONSENSE as error:
        raise InvalidResponse(f"{type(error).__name__}: {error}") from error


class _Bound:
    """Ends a wait: after so long, and a grace in time and in turns of the loop."""

    def __init__(self, wait: asyncio.Timeout, seconds: float) -> None:
        self._wait = wait
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.Handle = self._loop.call_later(seconds + _GRACE_S, self._turn, 0)

    def _turn(self, turns: int) -> None:
        if turns < _GRACE_TURNS:
            self._timer = self._loop.call_soon(self._turn, turns + 1)
        else:
            self._wait.reschedule(self._loop.time())

    def cancel(self) -> None:
        self._timer.cancel()


@contextlib.asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """TimeoutError for what takes longer; not for what has come while the loop itself was late."""
    async with asyncio.timeout(None) as wait:
        bound = _Bound(wait, seconds)
        try:
            yield
        finally:
            bound.cancel()


def wanted() -> str:
    """How it should be configured, in one line."""
    return ", ".join(f"{name} {value}" for name, value in _WANTED.items())


def in_words(error: BaseException) -> str:
    """What went wrong, in short."""
    if isinstance(error, TimeoutError):
        text = "it does not answer"
    elif isinstance(error, InvalidResponse) or _is_nonsense(error.__cause__):
        text = "it answers as no Redis does"
    else:
        text = str(error).rstrip(".") or type(error).__name__
    return f"it is away: {text}"[:_ERROR_MAX]


def _is_nonsense(cause: BaseException | None) -> bool:
    """Whether that is what the client could not connect for."""
    return isinstance(cause, _NONSENSE) and not isinstance(cause, OSError)


def _cli(url: str) -> str:
    """How people ask the same server, without a name and a password."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return f"redis-cli -s {quote(parts.path)}"
    tls = " --tls" if parts.scheme == "rediss" else ""
    return f"redis-cli -h {parts.hostname} -p {parts.port or _PORT}{tls}"
