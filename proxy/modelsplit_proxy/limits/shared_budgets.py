"""Budgets that several proxies count together, in a Redis or Valkey.

Each proxy goes on counting its own charges, in memory and on its disk. What Redis adds is the
sum: a call that must be counted is sent only once the server has counted it too, in the same
step in which it saw that there is room for it among everybody's.

The server is not believed to have kept what it was told. Whenever it may have lost some of it
(another ``run_id``, another epoch or none), or may not have got all of it (a connection broke),
each proxy writes its own charges anew; where some were lost, nothing is counted before everybody
has. Away is away: whatever the error is, nothing that must be counted is sent, but on a lease
(``modelsplit_policy.leases``).

Each state file has a name there, and each start of it a token, written to the file before it claims
the name. Of two processes from one copied file the one that is told that the name is another's, or
that more was counted for it than its file knows, takes a new name and writes all of its charges
under that too: those of before the copy count twice until their windows end, none is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import secrets
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from modelsplit_policy.budgets import Amount
from modelsplit_policy.leases import Lease, Leases
from modelsplit_proxy.limits import (
    budget_store,
    own_ollamas,
    shared_approvals,
    shared_link,
    shared_scripts,
    shared_sums,
)
from modelsplit_proxy.limits.own_ollamas import ONE_OLLAMA, OwnOllamas
from modelsplit_proxy.limits.shared_link import SharedLink, in_words
from modelsplit_proxy.limits.shared_sums import AwayError, Patience, Sums
from modelsplit_proxy.runtime.clock import rfc3339
from modelsplit_proxy.storage.state_file import StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from modelsplit_policy.budgets import Claim, Counted
    from modelsplit_proxy.limits.shared_sums import OwnCounts
    from modelsplit_proxy.runtime.clock import Clock
    from modelsplit_proxy.runtime.tasks import Tasks
    from modelsplit_proxy.storage.writer import Store

logger = logging.getLogger("modelsplit")

# How often to say that we are here, and to look whether it is back.
_WATCH_S: Final = 1.0
# So many calls ask at once; the others wait for these, and not for a server that they find away.
_TURNS: Final = shared_link.CONNECTIONS // 2
# So many tell what they have cost. What is left of the connections is for the watch.
_TELLERS: Final = shared_link.CONNECTIONS // 4
# Charges written anew with one command: a server does nothing else meanwhile.
_AT_ONCE: Final = 500
# A proxy that was heard of is written down again after this share of the longest window.
_KEPT_SHARE: Final = 0.01
# For how long a proxy may have charges that still matter: those to an approval.
_REMEMBERED_S: Final = 367 * 86_400.0
_HOUR_S: Final = 3600
# Who was heard of so recently is there.
_PRESENT_MS: Final = 10_000
# For so long it will do for a look that there was room.
_LATELY_S: Final = 0.05
# The name of no charge.
_NOBODY: Final = "-"
_NONE: Final = Sums(0, 0, None, 0, 0)
_ERROR_MAX: Final = 120
_LOST: Final = "it has lost its counts; they are being written anew"
_NOT_YET: Final = "it has not answered yet"
_TOO_MANY: Final = "too many calls ask it at once"
_TOO_SLOW: Final = "it answers too slowly"
_COPIED: Final = "another process has its name, from a copy of its state directory"
_UNTOLD: Final = "this approval has not been told to it yet"


@dataclass(slots=True)
class _Counting:
    """A charge that is being counted. ``is_left``: nobody waits for it any more."""

    answer: dict[str, Sums] | AwayError = field(default_factory=dict)
    is_left: bool = False


class SharedBudgets:
    """The server, and whether what it says can be believed now."""

    def __init__(
        self,
        url: str,
        prefix: str,
        store: Store,
        tasks: Tasks,
        clock: Clock,
        timeout_s: float | None = None,
        ollamas: Callable[[], Awaitable[OwnOllamas]] | None = None,
    ) -> None:
        """``url``: as of ``SharedLink``. ``ollamas``: whom this proxy asks.

        ``timeout_s``: the longest that one question takes; None: as long as usual.
        """
        timeout_s = shared_sums.TIMEOUT_S if timeout_s is None else timeout_s
        self._link = SharedLink(url, prefix, timeout_s)
        self._store = store
        self._tasks = tasks
        self._clock = clock
        self._name = ""
        # Of this start, known to our file before the server; then those of earlier starts too.
        self._token = ""
        self._tokens: tuple[str, ...] = ()
        self._last_charge = 0
        # The name that another has now, of the same file as it was once.
        self._was = ""
        self._heard_of: dict[str, float] = {}
        self._epoch = ""
        # Everything of ours is there, as far as we know.
        self._can_ask = False
        self._error: str | None = _NOT_YET
        self._since = clock.wall()
        self._was_told = self._was_open = False
        self._trouble = asyncio.Event()
        self._turns = asyncio.Semaphore(_TURNS)
        self._tellers = asyncio.Semaphore(_TELLERS)
        self._own: OwnCounts | None = None
        self._leases = Leases()
        # Approvals that it counts, by their names as budgets.
        self._told: set[str] = set()
        # What to do about the error.
        self.step = self._link.ping
        # As they were when they were last asked.
        self.sums: dict[str, Sums] = {}
        # And when that was.
        self._asked_at: dict[str, float] = {}
        # Calls sent on a lease.
        self.leased = 0
        self._ollamas = ollamas
        self._own_ollamas = OwnOllamas()
        # Others that ask an Ollama of ours, in words.
        self.rivals: tuple[str, ...] = ()
        # That our state directory is a copy, or was copied, in words.
        self.copies: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<SharedBudgets {self._name} {self._error or 'open'}>"

    @property
    def error(self) -> str | None:
        """Why nothing can be counted; None: it can."""
        return self._error

    def patience(self) -> Patience:
        """What one attempt has."""
        return Patience(self._link.timeout_s)

    def fields(self) -> dict[str, Any]:
        """For people. ``since``, ``next``: of the error. ``proxies``: who count together."""
        away = self._error is not None
        return {
            "error": self._error,
            "since": rfc3339(self._since) if away else None,
            "away_s": round(self._clock.wall() - self._since, 3) if away else None,
            "next": self.step if away else None,
            "proxies": self._proxies(),
            "calls_on_lease": self.leased,
            "same_ollama": list(self.rivals),
            "copies": list(self.copies),
        }

    def _proxies(self) -> int:
        assert self._own is not None
        since = self._clock.wall() - max(self._own.longest_s, _HOUR_S)
        return 1 + sum(at >= since for at in self._heard_of.values())

    # 1. For calls.

    async def look(
        self, claims: Sequence[Claim], patience: Patience | None = None
    ) -> dict[str, Sums]:
        """How budgets stand for such a call; counts nothing. Raises AwayError."""
        try:
            return await self._ask(claims, None, "look", patience)
        except AwayError:
            if self._can_ask or not self._leases.cover(claims, self._clock.now()):
                raise
            return self._with_room(claims)

    async def count(
        self, number: int, claims: Sequence[Claim], patience: Patience | None = None
    ) -> dict[str, Sums]:
        """Count this charge in all of them if all have room, else in none. Raises AwayError.

        A caller who is cancelled has counted nothing in the end.
        """
        counting = _Counting()
        work = self._count(counting, number, claims, patience)
        task = self._tasks.start(work, "shared budgets")
        try:
            # Whatever ends it ends the wait.
            await asyncio.shield(task)
        except asyncio.CancelledError:
            counting.is_left = True
            raise
        if isinstance(counting.answer, AwayError):
            raise counting.answer
        return counting.answer

    async def _count(
        self,
        counting: _Counting,
        number: int,
        claims: Sequence[Claim],
        patience: Patience | None,
    ) -> None:
        try:
            counting.answer = await self._ask(claims, number, "count", patience)
        except AwayError as error:
            counting.answer = error
            if counting.is_left:
                return
            if not self._can_ask and self._leases.spend(number, claims, self._clock.now()):
                self.leased += 1
                counting.answer = self._with_room(claims)
        if counting.is_left:
            self.settle(number, claims, None)

    def settle(self, number: int, claims: Sequence[Claim], nano_usd: int | None) -> None:
        """It has cost so much; None: it is none after all. Told a moment later."""
        self._leases.settle(number, nano_usd)
        if self._can_ask:
            self._tasks.run(self._settle(number, claims, nano_usd), "shared budgets")

    def lease(self, name: str) -> Amount | None:
        """What may be spent of this budget although nobody can be asked; None: they can."""
        return None if self._error is None else self._leases.left(name, self._clock.now())

    def _with_room(self, claims: Sequence[Claim]) -> dict[str, Sums]:
        """As far as it is known, for calls on a lease."""
        known = {claim.name: self.sums.get(claim.name, _NONE) for claim in claims}
        return {name: replace(sums, calls_wait_s=0, money_wait_s=0) for name, sums in known.items()}

    async def _ask(
        self, claims: Sequence[Claim], number: int | None, what: str, patience: Patience | None
    ) -> dict[str, Sums]:
        may_share = patience is not None
        patience = patience or self.patience()
        if patience.is_over:
            raise AwayError(_TOO_SLOW)
        began, is_asked = self._clock.now(), False
        try:
            async with shared_link.within(patience.next_s), self._turns:
                if not self._can_ask:
                    raise AwayError(self._error)
                known = self._known(claims, what, began) if may_share else None
                if known is not None:
                    return known
                is_asked = True
                await self._tell_of(claims)
                return await self._answer(claims, number, what)
        except shared_link.ERRORS as error:
            if not is_asked and isinstance(error, TimeoutError):
                raise AwayError(_TOO_MANY) from None
            raise AwayError(self._fail(error)) from None
        finally:
            patience.spend(self._clock.now() - began)

    def _known(self, claims: Sequence[Claim], what: str, came: float) -> dict[str, Sums] | None:
        """What others have just been told, where that will do; None: it has to be asked.

        That there is room, for a look: what is counted is asked in any case. That there is none,
        if it was asked for after this one came.
        """
        at = [self._asked_at.get(claim.name, -math.inf) for claim in claims]
        sums = {claim.name: self.sums.get(claim.name, _NONE) for claim in claims}
        if what == "look" and min(at, default=0.0) > came - _LATELY_S:
            are_free = not any(claim.nano_usd for claim in claims)
            if are_free and all(row.has_room for row in sums.values()):
                return sums
        is_full = any(
            sums[claim.name].calls_wait_s != 0 and asked > came
            for claim, asked in zip(claims, at, strict=True)
        )
        return sums if is_full else None

    async def _answer(
        self, claims: Sequence[Claim], number: int | None, what: str
    ) -> dict[str, Sums]:
        # Our name may have become another while this waited for its turn.
        charge = _NOBODY if number is None else self._charge(number)
        names = ("expected", f"seeded:{self._epoch}", "changes", *_places(claims))
        limits = chain.from_iterable(map(_row, claims))
        began, times_lost = self._clock.now(), self._leases.times_lost
        answer = await self._step(shared_scripts.COUNT, names, (charge, what, *limits))
        with shared_link.understood():
            said, *budgets = answer
            if said == "expecting":
                missing = _expecting(str(budgets[0]))
                raise AwayError(self._lose(missing, self._link.no_matter()))
            rows = [(_sums(row), _lease(row, began)) for row in budgets]
            told = dict(zip((claim.name for claim in claims), rows, strict=True))
        for name, (_, lease) in told.items():
            self._asked_at[name] = began
            self._leases.renew(name, lease, times_lost)
        sums = {name: row for name, (row, _) in told.items()}
        self.sums |= sums
        if self._can_ask:
            self._well()
        return sums

    async def _settle(self, number: int, claims: Sequence[Claim], nano_usd: int | None) -> None:
        names = chain.from_iterable(_places_of(claim.name)[:2] for claim in claims)
        cost = [] if nano_usd is None else [nano_usd]
        async with self._tellers:
            if not self._can_ask:
                # It is written anew with all others.
                return
            try:
                arguments: list[str | int] = [self._charge(number), *cost]
                await self._step(shared_scripts.SETTLE, tuple(names), arguments)
            except AwayError:
                # Whatever was lost, it is written anew with all others.
                return
            except shared_link.ERRORS as error:
                self._fail(error)

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
            if not self._can_ask:
                await self._begin()
            await self._say_that_we_are_here()
            await self._exchange_approvals()
            if claims := self._own.all_claims():
                await self._ask(claims, None, "look", None)
            else:
                self._well()
        except shared_link.ERRORS as error:
            self._fail(error)
        except StoreError as error:
            self._lose(f"the state file cannot be read: {error}"[:_ERROR_MAX])
        except AwayError:
            pass

    async def close(self) -> None:
        await self._link.close()

    def _fail(self, error: BaseException) -> str:
        """It is away, for this error."""
        return self._lose(in_words(error), self._link.step(error))

    def _lose(self, why: str, step: str = "") -> str:
        """From now on nothing is counted, until everything of ours has been written anew.

        ``step``: what people can do about it; empty: ask it whether it is there.
        """
        self._can_ask = False
        self._asked_at.clear()
        self._leases.lose()
        if self._error is None:
            self._since = self._clock.wall()
        self._error, self.step = why, step or self._link.ping
        if not self._was_told:
            self._was_told = True
            text = "shared budgets: the Redis: %s; calls that they count are refused; next: %s"
            logger.error(text, why, self.step)
        self._trouble.set()
        return why

    def _well(self) -> None:
        self._error = None
        if self._was_told:
            self._was_told = False
            logger.warning("shared budgets: counted again, with %d proxies", self._proxies())

    async def _know_ourselves(self) -> None:
        if not self._name:
            wall, name, token = self._clock.wall(), secrets.token_hex(8), secrets.token_hex(8)
            reading = self._store.submit(lambda db: budget_store.members(db, name, token, wall))
            known = await asyncio.wrap_future(reading)
            self._token, self._tokens = token, known.tokens
            self._name, self._last_charge = known.name, known.last_charge
            self._heard_of = known.others

    async def _claim(self) -> None:
        """Own our name, or take another where that is somebody else's."""
        if not await self._is_ours():
            await self._take_another_name()
            if not await self._is_ours():
                raise AwayError(self._lose(_COPIED))

    async def _is_ours(self) -> bool:
        arguments = [self._name, self._token, self._last_charge, *self._tokens]
        answer = await self._link.run(shared_scripts.CLAIM, self._link.keys("owners"), arguments)
        # Only its own word takes a name from us.
        with shared_link.understood():
            return {"ours": True, "copied": False}[answer]

    async def _take_another_name(self) -> None:
        """What was leased and what was counted under the old one is another's by now."""
        wall, name, token = self._clock.wall(), secrets.token_hex(8), secrets.token_hex(8)
        writing = self._store.submit(lambda db: budget_store.rename(db, name, token, wall))
        await asyncio.wrap_future(writing)
        self._was, self._name = self._name, name
        self._token, self._tokens = token, (token,)
        self._heard_of[self._was] = wall
        self._leases = Leases()
        self.copies = self._copy_of((self._was,))
        logger.warning("shared budgets: %s", *self.copies)

    # 3. Beginning anew.

    async def _begin(self) -> None:
        """Write all charges of ours anew, under the epoch that holds or a new one."""
        assert self._own is not None
        await self._claim()
        run = await self._link.run_id()
        known = await self._link.field("state", "")
        wanted = known if known.startswith(f"{run}:") else f"{run}:{secrets.token_hex(8)}"
        while (holds := await self._agree(known, wanted)) != wanted:
            # Somebody else was faster.
            known = wanted = holds
        self._epoch = wanted
        self._told.clear()
        written: dict[str, dict[int, Counted]] = {}
        while changes := _changes(written, self._own.counted()):
            windows = {claim.name: claim.window_s for claim in self._own.all_claims()}
            for budget, charges, gone in changes:
                await self._seed(
                    (budget, windows.get(budget, 0)), charges, gone, is_all=budget not in written
                )
                written[budget] = written.get(budget, {}) | {c.id: c for c in charges}
                for number in gone:
                    del written[budget][number]
        # Between the last look at our own counts and this nothing else had a turn.
        self._told.update(name for name in written if name.startswith(shared_approvals.PREFIX))
        self._leases.told()
        self._can_ask = True
        if not self._was_open:
            self._was_open = True
            await self._warn()

    async def _agree(self, known: str, wanted: str) -> str:
        """The epoch that holds. Where it is ours, whose charges may be lost is written with it."""
        is_kept = bool(known) and known != wanted and await self._link.keeps_all()
        wall = self._clock.wall()
        others = ((name, _ms(wall - at)) for name, at in self._heard_of.items())
        keys = self._link.keys(
            "state", "expected", "proxies", f"seeded:{known}", f"seeded:{wanted}"
        )
        arguments = [known, wanted, self._name, _ms(_REMEMBERED_S), int(is_kept)]
        arguments += chain.from_iterable(others)
        return str(await self._link.run(shared_scripts.BEGIN, keys, arguments))

    async def _seed(
        self,
        budget: tuple[str, int],
        charges: Sequence[Counted],
        gone: Iterable[int],
        *,
        is_all: bool,
    ) -> None:
        """Write these charges; the budget is known from then on, with none too.

        ``budget``: its name, and its window in seconds. ``is_all``: no others of ours are to stay.
        """
        assert self._own is not None
        now = self._own.now()
        firsts = range(0, max(1, len(charges)), _AT_ONCE)
        parts = [charges[first : first + _AT_ONCE] for first in firsts]
        mine = f"{self._name}:"
        name, window_s = budget
        places = _places_of(name)[:2]
        for part in parts:
            rows = ((self._charge(c.id), _ms(now - c.at), c.nano_usd) for c in part)
            replaced = mine if is_all and len(parts) == 1 else ""
            arguments: list[str | int] = [name, _ms(window_s), replaced]
            arguments += chain.from_iterable(rows)
            await self._step(shared_scripts.SEED, places, arguments)
        for number in gone:
            await self._step(shared_scripts.SETTLE, places, (self._charge(number),))

    async def _step(self, script: str, names: Sequence[str], arguments: Sequence[str | int]) -> Any:
        """One of those under our epoch and our name. Raises AwayError where either is over."""
        keys = self._link.keys("state", "owners", *names)
        own = [self._epoch, self._name, self._token]
        answer = await self._link.run(script, keys, [*own, *arguments])
        said = answer[0] if isinstance(answer, list) and answer else answer
        if said == "lost":
            raise AwayError(self._lose(_LOST))
        if said == "copied":
            # What was leased to the name is its new owner's.
            self._leases = Leases()
            raise AwayError(self._lose(_COPIED))
        return answer

    async def _say_that_we_are_here(self) -> None:
        if self._ollamas is not None and not self._own_ollamas.marks:
            self._own_ollamas = await self._ollamas()
        own = self._own_ollamas
        names = (f"seeded:{self._epoch}", "proxies", "ollamas")
        answer = await self._step(shared_scripts.HERE, names, (own.text(self._was),))
        wall = self._clock.wall()
        with shared_link.understood():
            _, *rows = answer
            told = [
                (str(n), int(age), str(text))
                for n, age, text in zip(*[iter(rows)] * 3, strict=True)
            ]
        others = [row for row in told if row[0] != self._name]
        self._remember({name: wall - age / 1000 for name, age, _ in others}, wall)
        present = {name: text for name, age, text in others if age < _PRESENT_MS}
        self._meet(own.rivals(present.values()))
        self._meet_copies(present)

    def _meet(self, rivals: tuple[str, ...]) -> None:
        """Say so once of each that is not known yet."""
        for rival in rivals:
            if rival not in self.rivals:
                logger.warning("%s; %s", rival, ONE_OLLAMA)
        self.rivals = rivals

    def _meet_copies(self, present: Mapping[str, str]) -> None:
        """``present``: what others say of themselves, by their names."""
        copies = own_ollamas.copies(present.values(), self._name)
        for copy in copies:
            if copy not in self.copies:
                logger.warning("shared budgets: %s", copy)
        self.copies = (*self._copy_of(present), *copies)

    def _copy_of(self, names: Iterable[str]) -> tuple[str, ...]:
        """That one of these has the name that we had, in words."""
        return (own_ollamas.COPY.format(self._was, self._name),) if self._was in names else ()

    def _remember(self, seen: dict[str, float], wall: float) -> None:
        """On disk too, but not each second: who is new, and once in a while."""
        assert self._own is not None
        longest_s = self._own.longest_s
        is_news = any(
            at - self._heard_of.get(name, 0.0) > _KEPT_SHARE * longest_s
            for name, at in seen.items()
        )
        if is_news:
            since = wall - _REMEMBERED_S
            # A server that has forgotten some does not make us forget them.
            known = {name: at for name, at in self._heard_of.items() if at >= since}
            self._heard_of = known | seen
            self._store.submit(lambda db: budget_store.keep_members(db, seen, since))

    async def _warn(self) -> None:
        """Say what the server may lose, as far as it tells how it is configured."""
        if flaws := await self._link.flaws():
            text = "shared budgets: the server may lose what it counted (%s); it should have %s"
            logger.warning(text, ", ".join(flaws), shared_link.wanted())

    # 4. Approvals.

    async def ask_now(self) -> None:
        """Learn what all have approved and counted by now. Raises AwayError, StoreError."""
        assert self._own is not None
        await self.learn_approvals(self.patience())
        if claims := self._own.all_claims():
            await self._ask(claims, None, "look", None)

    async def learn_approvals(self, patience: Patience) -> None:
        """Tell ours, and hear of those that others have given. Raises AwayError, StoreError."""
        if patience.is_over:
            raise AwayError(_TOO_SLOW)
        began, is_asked = self._clock.now(), False
        try:
            async with shared_link.within(patience.next_s), self._turns:
                if not self._can_ask:
                    raise AwayError(self._error)
                is_asked = True
                await self._exchange_approvals()
        except shared_link.ERRORS as error:
            if not is_asked and isinstance(error, TimeoutError):
                raise AwayError(_TOO_MANY) from None
            raise AwayError(self._fail(error)) from None
        finally:
            patience.spend(self._clock.now() - began)

    async def _exchange_approvals(self) -> None:
        own = self._own
        assert own is not None
        changes = await own.changes()
        now, wall = own.now(), self._clock.wall()
        texts = shared_approvals.texts(changes, now, wall)
        answer = await self._step(shared_scripts.TELL, ("changes",), texts)
        with shared_link.understood():
            _, *rows = answer
            told = [(str(n), str(text)) for n, text in zip(rows[::2], rows[1::2], strict=True)]
        approvals, revocations = shared_approvals.news(told, changes, now, wall)
        if approvals or revocations:
            await own.learn(approvals, revocations)
        await self._forget(shared_approvals.over(told, wall))
        await self._tell_of(own.all_claims())

    async def _tell_of(self, claims: Sequence[Claim]) -> None:
        """Have it count approvals that it has not counted yet."""
        for claim in claims:
            if claim.approval and claim.name not in self._told:
                await self._seed((claim.name, claim.window_s), (), (), is_all=False)
                self._told.add(claim.name)

    async def _forget(self, uids: Sequence[str]) -> None:
        """What was an approval once."""
        names = [shared_approvals.name_of(uid) for uid in uids]
        if names:
            fields = [f"{action}:{uid}" for uid in uids for action in ("approve", "revoke")]
            await self._link.forget("changes", fields, [])
            await self._link.forget("state", names, [*chain.from_iterable(map(_places_of, names))])

    # 5. Names.

    def _charge(self, number: int) -> str:
        return f"{self._name}:{number}"


def _changes(
    written: Mapping[str, Mapping[int, Counted]], counted: Mapping[str, Sequence[Counted]]
) -> list[tuple[str, list[Counted], list[int]]]:
    """Of each budget that is not as it was written: charges to write, and those that are gone."""
    changes = []
    for budget, charges in counted.items():
        before = written.get(budget)
        ids = {charge.id for charge in charges}
        fresh = [c for c in charges if before is None or before.get(c.id) != c]
        gone = [number for number in before or () if number not in ids]
        if before is None or fresh or gone:
            changes.append((budget, fresh, gone))
    return changes


def _places(claims: Sequence[Claim]) -> Iterable[str]:
    return chain.from_iterable(_places_of(claim.name) for claim in claims)


def _places_of(budget: str) -> tuple[str, str, str]:
    """The names of what is kept of one budget."""
    return f"times:{budget}", f"costs:{budget}", f"leases:{budget}"


def _row(claim: Claim) -> tuple[str | int, ...]:
    """What a script is told of one budget."""
    calls = -1 if claim.max_calls is None else claim.max_calls
    money = -1 if claim.max_nano_usd is None else claim.max_nano_usd
    lease = claim.lease
    limits = (_ms(claim.window_s), calls, money, claim.nano_usd)
    return claim.name, *limits, lease.calls, lease.nano_usd, claim.approval, _ms(claim.reach_s)


def _sums(row: Sequence[int]) -> Sums:
    calls, nano_usd, frees, calls_wait, money_wait = map(int, row[:5])
    is_revoked = int(row[9]) == 1
    return Sums(calls, nano_usd, _s(frees), _s(calls_wait), _s(money_wait), is_revoked)


def _lease(row: Sequence[int], asked_at: float) -> Lease:
    """Holds at most from the moment at which it was asked for."""
    calls, nano_usd, holds_ms, revision = map(int, row[5:9])
    return Lease(revision, Amount(calls, nano_usd), asked_at + holds_ms / 1000)


def _s(milliseconds: int) -> float | None:
    return None if milliseconds < 0 else milliseconds / 1000


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _expecting(proxy: str) -> str:
    return f"it lost its counts, and proxy {proxy} has not written its own anew: start that one"
