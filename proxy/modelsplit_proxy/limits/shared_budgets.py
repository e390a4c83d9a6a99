"""Budgets that several proxies count together, in a Redis or Valkey.

Each proxy goes on counting its own charges, in memory and on its disk. What Redis adds is the
sum: a call that must be counted is sent only once the server has counted it too, in the same
step in which it saw that there is room for it among everybody's.

The server is not believed to have kept what it was told. Whenever it may have lost some of it
(another ``run_id``, another epoch or none), or may not have got all of it (a connection broke),
each proxy writes its own charges anew; where some were lost, nothing is counted before everybody
has. Away is away: whatever the error is, nothing that must be counted is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from modelsplit_proxy.limits import budget_store, shared_scripts
from modelsplit_proxy.limits.shared_sums import AwayError, Sums
from modelsplit_proxy.storage.state_file import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from modelsplit_policy.budgets import Claim, Counted
    from modelsplit_proxy.limits.shared_sums import OwnCounts
    from modelsplit_proxy.runtime.clock import Clock
    from modelsplit_proxy.runtime.tasks import Tasks
    from modelsplit_proxy.storage.writer import Store

logger = logging.getLogger("modelsplit")

# A server that is well answers within a millisecond.
TIMEOUT_S: Final = 0.25
# How often to say that we are here, and to look whether it is back.
_WATCH_S: Final = 1.0
# So many calls ask at once; the others wait for these, and not for a server that they find away.
_TURNS: Final = 8
_PORT: Final = 6379
_CONNECTIONS: Final = 2 * _TURNS
# Charges written anew with one command: a server does nothing else meanwhile.
_AT_ONCE: Final = 500
# A proxy that was heard of is written down again after this share of the longest window.
_KEPT_SHARE: Final = 0.01
# The name of no charge.
_NOBODY: Final = "-"
_ERROR_MAX: Final = 120
_LOST: Final = "it has lost its counts; they are being written anew"
_NOT_YET: Final = "it has not answered yet"
# How a server is configured that keeps whatever it has said yes to.
_WANTED: Final = MappingProxyType(
    {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
)
_SCRIPTS: Final = (
    shared_scripts.COUNT,
    shared_scripts.SETTLE,
    shared_scripts.BEGIN,
    shared_scripts.SEED,
    shared_scripts.HERE,
)
_AWAY: Final = (RedisError, OSError, TimeoutError)


class SharedBudgets:
    """The server, and whether what it says can be believed now."""

    def __init__(
        self,
        url: str,
        prefix: str,
        store: Store,
        tasks: Tasks,
        clock: Clock,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """``url``: ``redis://``, ``rediss://`` or ``unix://``; ValueError if it is none of them.

        ``timeout_s``: the longest that a call waits for the server.
        """
        self._redis = Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            max_connections=_CONNECTIONS,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
        )
        # All keys in one slot of a cluster.
        self._prefix = f"{{{prefix}}}"
        self._store = store
        self._tasks = tasks
        self._clock = clock
        self._name = ""
        self._heard_of: dict[str, float] = {}
        self._epoch = ""
        self._error: str | None = _NOT_YET
        self._was_told = self._was_open = False
        self._trouble = asyncio.Event()
        self._turns = asyncio.Semaphore(_TURNS)
        self._own: OwnCounts | None = None
        self._held: str | None = None
        self.ping = _ping(url)
        self._scripts = {text: self._redis.register_script(text) for text in _SCRIPTS}
        # As they were when they were last asked.
        self.sums: dict[str, Sums] = {}

    def __repr__(self) -> str:
        return f"<SharedBudgets {self._name} {self._error or 'open'}>"

    @property
    def error(self) -> str | None:
        """Why nothing can be counted; None: it can."""
        return self._error or self._held

    def fields(self) -> dict[str, Any]:
        """For people. ``proxies``: how many count together, this one included."""
        return {"error": self.error, "proxies": self._proxies()}

    def _proxies(self) -> int:
        return 1 + len(self._heard_of)

    # 1. For calls.

    async def look(self, claims: Sequence[Claim]) -> dict[str, Sums]:
        """How budgets stand for such a call; counts nothing. Raises AwayError."""
        return await self._ask(claims, _NOBODY, "look")

    async def count(self, number: int, claims: Sequence[Claim]) -> dict[str, Sums]:
        """Count this charge in all of them if all have room, else in none. Raises AwayError."""
        return await self._ask(claims, self._charge(number), "count")

    def settle(self, number: int, claims: Sequence[Claim], nano_usd: int | None) -> None:
        """It has cost so much; None: it is none after all. Told a moment later."""
        if self._error is None:
            self._tasks.run(self._settle(number, claims, nano_usd), "shared budgets")

    async def _ask(self, claims: Sequence[Claim], charge: str, what: str) -> dict[str, Sums]:
        async with self._turns:
            if self._error is not None:
                raise AwayError(self._error)
            said, *budgets = await self._answer(claims, charge, what)
        if said == "lost":
            raise AwayError(self._lose(_LOST))
        self._held = _expecting(budgets[0]) if said == "expecting" else None
        if self._held is not None:
            raise AwayError(self._held)
        names = [claim.name for claim in claims]
        sums = dict(zip(names, map(_sums, budgets), strict=True))
        self.sums |= sums
        return sums

    async def _answer(self, claims: Sequence[Claim], charge: str, what: str) -> list[Any]:
        keys = self._keys("epoch", "expected", f"seeded:{self._epoch}", *_places(claims))
        rows = chain.from_iterable(map(_row, claims))
        arguments = [self._epoch, charge, what, *rows]
        try:
            return cast("list[Any]", await self._run(shared_scripts.COUNT, keys, arguments))
        except asyncio.CancelledError:
            # It may have been counted, or be counted yet.
            self._lose("a call that was being counted was broken off")
            raise
        except _AWAY as error:
            raise AwayError(self._lose(_in_words(error))) from None

    async def _settle(self, number: int, claims: Sequence[Claim], nano_usd: int | None) -> None:
        keys = self._keys("epoch", *_places(claims))
        cost = [] if nano_usd is None else [nano_usd]
        try:
            await self._run(shared_scripts.SETTLE, keys, [self._epoch, self._charge(number), *cost])
        except _AWAY as error:
            self._lose(_in_words(error))

    # 2. For the process.

    def counts_for(self, own: OwnCounts) -> None:
        """Whose charges are written anew."""
        self._own = own

    async def watch(self) -> None:
        """Say that we are here, begin anew where something was lost. Runs for ever."""
        while True:
            await self.look_after()
            # What went wrong just now will not be better at once.
            self._trouble.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._trouble.wait(), _WATCH_S)

    async def look_after(self) -> None:
        """Once; what goes wrong is kept as the error."""
        assert self._own is not None
        if not self._own.is_open:
            return
        try:
            await self._know_ourselves()
            if self._error is not None:
                await self._begin()
            await self._say_that_we_are_here()
            if claims := self._own.all_claims():
                await self.look(claims)
        except _AWAY as error:
            self._lose(_in_words(error))
        except StoreError as error:
            self._lose(f"the state file cannot be read: {error}"[:_ERROR_MAX])
        except AwayError:
            pass

    async def close(self) -> None:
        await self._redis.aclose()

    def _lose(self, why: str) -> str:
        """From now on nothing is counted, until everything of ours has been written anew."""
        if not self._was_told:
            self._was_told = True
            logger.error("shared budgets: the Redis: %s; calls that they count are refused", why)
        self._error = why
        self._trouble.set()
        return why

    async def _know_ourselves(self) -> None:
        if not self._name:
            wall, name = self._clock.wall(), secrets.token_hex(8)
            reading = self._store.submit(lambda db: budget_store.members(db, name, wall))
            self._name, self._heard_of = await asyncio.wrap_future(reading)

    async def _begin(self) -> None:
        """Write all charges of ours anew, under the epoch that holds or a new one."""
        assert self._own is not None
        info = await self._redis.info("server")
        known = cast("str | None", await self._redis.get(self._key("epoch"))) or ""
        run = str(info["run_id"])
        is_same = known.startswith(f"{run}:")
        self._epoch = await self._agree(
            known, known if is_same else f"{run}:{secrets.token_hex(8)}"
        )
        now, counted = self._own.now(), self._own.counted()
        for budget, charges in counted.items():
            await self._seed(budget, charges, now)
        self._error = None
        if not self._was_open:
            self._was_open = True
            await self._warn()
        if self._was_told:
            self._was_told = False
            logger.warning("shared budgets: counted again, with %d proxies", self._proxies())

    async def _agree(self, known: str, wanted: str) -> str:
        """The epoch that holds. Where it is ours, whose charges may be lost is written with it."""
        assert self._own is not None
        longest_s = self._own.longest_s
        lost = () if known == wanted or (known and await self._is_durable()) else self._others()
        keys = self._keys("epoch", "expected", "proxies")
        arguments = [known, wanted, self._name, _ms(longest_s), *lost]
        return cast("str", await self._run(shared_scripts.BEGIN, keys, arguments))

    async def _is_durable(self) -> bool:
        """Whether the server has on disk whatever it has said yes to; False if it does not say."""
        try:
            said = await self._redis.config_get(*_WANTED)
        except ResponseError:
            return False
        return bool(said == _WANTED)

    def _others(self) -> Iterable[str | int]:
        """Who else may have charges there, and for how many ms they still count."""
        assert self._own is not None
        wall, longest_s = self._clock.wall(), self._own.longest_s
        for name, seen_at in self._heard_of.items():
            yield from (name, _ms(max(0.0, seen_at + longest_s - wall)))

    async def _seed(self, budget: str, charges: Sequence[Counted], now: float) -> None:
        times, costs = self._keys(f"times:{budget}", f"costs:{budget}")
        ours = {self._charge(charge.id) for charge in charges}
        for first in range(0, len(charges), _AT_ONCE):
            some = charges[first : first + _AT_ONCE]
            rows = ((self._charge(c.id), _ms(now - c.at), c.nano_usd) for c in some)
            arguments = [self._epoch, *chain.from_iterable(rows)]
            await self._run(shared_scripts.SEED, [self._key("epoch"), times, costs], arguments)
        there = cast("list[str]", await self._redis.zrange(times, 0, -1))
        for gone in there:
            if gone.startswith(f"{self._name}:") and gone not in ours:
                keys = [self._key("epoch"), times, costs]
                await self._run(shared_scripts.SETTLE, keys, [self._epoch, gone])

    async def _say_that_we_are_here(self) -> None:
        keys = self._keys("epoch", f"seeded:{self._epoch}", "proxies")
        said, *rows = await self._run(shared_scripts.HERE, keys, [self._epoch, self._name])
        if said == "lost":
            raise AwayError(self._lose(_LOST))
        wall = self._clock.wall()
        ages = dict(zip(rows[::2], rows[1::2], strict=True))
        seen = {name: wall - age / 1000 for name, age in ages.items() if name != self._name}
        self._remember(seen, wall)

    def _remember(self, seen: dict[str, float], wall: float) -> None:
        """On disk too, but not each second: who is new, and once in a while."""
        assert self._own is not None
        longest_s = self._own.longest_s
        is_news = any(
            at - self._heard_of.get(name, 0.0) > _KEPT_SHARE * longest_s
            for name, at in seen.items()
        )
        if is_news:
            since = wall - longest_s
            self._heard_of = seen
            self._store.submit(lambda db: budget_store.keep_members(db, seen, since))

    async def _warn(self) -> None:
        """Say what the server may lose, as far as it tells how it is configured."""
        try:
            said = await self._redis.config_get(*_WANTED)
        except ResponseError:
            return
        wrong = [f"{name} {said[name]}" for name in _WANTED if said.get(name) != _WANTED[name]]
        if wrong:
            want = ", ".join(f"{name} {value}" for name, value in _WANTED.items())
            text = "shared budgets: the server may lose what it counted (%s); it should have %s"
            logger.warning(text, ", ".join(wrong), want)

    # 3. Names.

    async def _run(self, script: str, keys: list[str], arguments: list[Any]) -> Any:
        return await self._scripts[script](keys=keys, args=arguments)

    def _charge(self, number: int) -> str:
        return f"{self._name}:{number}"

    def _key(self, name: str) -> str:
        return f"{self._prefix}:{name}"

    def _keys(self, *names: str) -> list[str]:
        return [self._key(name) for name in names]


def _ping(url: str) -> str:
    """The command that asks the same server whether it is there; no password is in it."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return f"redis-cli -s {parts.path} ping"
    tls = " --tls" if parts.scheme == "rediss" else ""
    return f"redis-cli -h {parts.hostname} -p {parts.port or _PORT}{tls} ping"


def _places(claims: Iterable[Claim]) -> Iterable[str]:
    for claim in claims:
        yield f"times:{claim.name}"
        yield f"costs:{claim.name}"


def _row(claim: Claim) -> tuple[int, int, int, int]:
    """What a script is told of one budget."""
    calls = -1 if claim.max_calls is None else claim.max_calls
    money = -1 if claim.max_nano_usd is None else claim.max_nano_usd
    return _ms(claim.window_s), calls, money, claim.nano_usd


def _sums(row: Sequence[int]) -> Sums:
    calls, nano_usd, frees, calls_wait, money_wait = map(int, row)
    return Sums(calls, nano_usd, _s(frees), _s(calls_wait), _s(money_wait))


def _s(milliseconds: int) -> float | None:
    return None if milliseconds < 0 else milliseconds / 1000


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _expecting(proxy: str) -> str:
    return f"it lost its counts, and proxy {proxy} has not written its own anew"


def _in_words(error: BaseException) -> str:
    text = str(error).rstrip(".") or type(error).__name__
    return f"it is away: {text}"[:_ERROR_MAX]
