"""The figures of the dashboard: what is so now, as it changes, and what the records say."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from heapq import nlargest
from importlib.metadata import version
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import orjson

from modelsplit_policy.failures import ErrorCode, said_back
from modelsplit_policy.queue_view import shown, shown_running
from modelsplit_policy.vocabulary import Role
from modelsplit_proxy.admin.live_feed import LiveFeed
from modelsplit_proxy.admin.page import Live, Page, PageAsked, failed
from modelsplit_proxy.admin.shared_answers import SharedAnswers
from modelsplit_proxy.admin.stats import standing_fields
from modelsplit_proxy.protocol import tellable
from modelsplit_proxy.records import explain
from modelsplit_proxy.records.history import SPANS, History
from modelsplit_proxy.records.query import only, read_query
from modelsplit_proxy.records.query_error import QueryError
from modelsplit_proxy.records.reader import newest
from modelsplit_proxy.watch.residents import residents

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_proxy.admin.page import Handler
    from modelsplit_proxy.admin.parts import StatsParts
    from modelsplit_proxy.config.settings import Address
    from modelsplit_proxy.http.downstream import Downstream
    from modelsplit_proxy.records.query import Query

# Of a full line so many are shown; how many there are is told with them.
_SHOWN_MAX: Final = 100
_CALLS: Final = 100
# Among so many of the last calls those are looked for that a filter wants.
_LOOKED_THROUGH: Final = 50_000
_CALL_WORDS: Final = ("role", "model", "client", "job", "outcome", "failed")
# What a list of calls shows of each.
_CALL_FIELDS: Final = (
    *("request_id", "started_at", "llm_role", "requested_model", "llm_model", "outcome", "reason"),
    *("status", "route_reason", "fallback_used", "llm_queue_wait_ms", "ttfb_ms", "llm_attempt"),
    *("call_e2e_latency_ms", "output_tokens", "client", "job_id", "state", "llm_latency_ms"),
)
_CALLS_AGE_S: Final = 2.0
# Who looks back over very many calls looks again the later: a hundredth of one processor at most.
_REST: Final = 100
_SNAPSHOT_AGE_S: Final = 1.0
# So many snapshots from one look at what other processes have done to budgets to the next.
_LOOK_EVERY: Final = 5
# What a route of its own says, made once for all who watch: the route, what it is asked, and how
# old it may be.
_AS_THERE: Final = MappingProxyType(
    {
        "slo": ("/slo", PageAsked({}), 60.0),
        "experiments": ("/experiments", PageAsked({}), 60.0),
        "jobs": ("/jobs", PageAsked({"limit": "50"}), 5.0),
    }
)
# Of a step of a chart: how old its last point may be.
_AGE_SHARE: Final = 3
_AGE_MAX_S: Final = 60.0


class DashboardData:
    """``answers``: by name."""

    def __init__(self, stats: StatsParts, listen: Address, routes: Mapping[str, Handler]) -> None:
        """``listen``: where calls are taken. ``routes``: the others of the admin port."""
        self._routes = routes
        self._stats = stats
        self._listen = listen
        self._history = History(stats.recorder.read)
        self._shared = SharedAnswers(stats.clock)
        self._version = version("modelsplit")
        self._looks = 0
        self.feed = LiveFeed(self._snapshot, stats.tasks)
        self.answers: Mapping[str, Handler] = {
            "events": self._events,
            "snapshot": self._now,
            "history": self._looked_back,
            "calls": self._calls,
            **{name: partial(self._as_there, name) for name in _AS_THERE},
        }

    # 1. What is so now.

    async def _events(self, asked: PageAsked) -> Live | Page:
        del asked
        if self.feed.is_full:
            text = "too many watch already; the page asks now and then instead"
            return failed(text, ErrorCode.OVERLOAD_THROTTLED, 503)
        return Live("text/event-stream", self._watch)

    async def _watch(self, down: Downstream) -> None:
        await self.feed.watch(down)

    async def _now(self, asked: PageAsked) -> Page:
        """The same for who cannot be told of changes."""
        del asked
        return Page(await self._shared.get("now", _SNAPSHOT_AGE_S, self._snapshot))

    async def _snapshot(self) -> bytes:
        stats = self._stats
        if self._looks % _LOOK_EVERY == 0:
            await stats.budget_keeper.look()
        self._looks += 1
        return tellable.dumps(self._fields(), orjson.OPT_NON_STR_KEYS)

    def _fields(self) -> dict[str, Any]:
        stats = self._stats
        fields = standing_fields(stats)
        level_since = stats.service.since()
        return fields | {
            "at": round(stats.clock.wall(), 3),
            "version": self._version,
            "listen": str(self._listen),
            "level_seen_since": None if level_since is None else round(level_since, 3),
            "queue": self._queue(stats.clock.now()),
            "residents": self._residents(),
        }

    def _queue(self, now: float) -> dict[str, Any]:
        """Who waits and who runs, the longest first; of each role who has waited longest."""
        admission = self._stats.admission
        waiters, runners = admission.waiters(now), admission.runners(now)
        longest = nlargest(_SHOWN_MAX, waiters, key=lambda waiter: waiter.waited_s)
        running = nlargest(_SHOWN_MAX, runners, key=lambda runner: runner.running_s)
        oldest = {role: admission.oldest_wait_s(role, now) for role in Role}
        return {
            "waiting": [
                row | {"why": explain.hold_in_words(str(row["hold"]))} for row in shown(longest)
            ],
            "waiting_in_all": len(waiters),
            "oldest_ms": {
                role: round(1000 * wait_s, 1) for role, wait_s in oldest.items() if wait_s
            },
            "running": list(shown_running(running)),
            "running_in_all": len(runners),
        }

    def _residents(self) -> list[dict[str, Any]] | None:
        """None: nobody knows what is loaded."""
        watch = self._stats.loaded_models
        if watch.models is None:
            return None
        return [resident._asdict() for resident in residents(watch.answer)]

    # 2. What the records say.

    async def _looked_back(self, asked: PageAsked) -> Page:
        only(asked.query, ("span",))
        name = asked.query.get("span", "15m")
        if name not in SPANS:
            known = ", ".join(SPANS)
            raise QueryError(f'span "{said_back(name, 20)}" is unknown; use {known}')
        age_s = min(_AGE_MAX_S, SPANS[name].step_s / _AGE_SHARE)

        async def make() -> bytes:
            now_us = round(self._stats.clock.wall() * 1e6)
            fields = await asyncio.to_thread(self._history.fields, SPANS[name], now_us)
            return tellable.dumps({"span": name} | fields, orjson.OPT_NON_STR_KEYS)

        return Page(await self._shared.get(f"history {name}", age_s, make, _REST))

    async def _calls(self, asked: PageAsked) -> Page:
        """The last calls of a day that are like this, running ones among them."""
        only(asked.query, _CALL_WORDS)
        wall = self._stats.clock.wall()
        query = read_query({**asked.query, "since": "1d"}, wall)

        async def make() -> bytes:
            # Before the others: one that ends meanwhile is told once, as it ended.
            running = self._stats.live.newest(query, _CALLS)
            since_us, kept = await asyncio.to_thread(self._kept_calls, query)
            calls = [
                {name: call.get(name) for name in _CALL_FIELDS}
                for call in newest([*kept, *running], _CALLS)
            ]
            fields = {"looked_through": _LOOKED_THROUGH, "all_since_us": since_us, "calls": calls}
            return tellable.dumps(fields, orjson.OPT_NON_STR_KEYS)

        words = sorted(asked.query.items())
        return Page(await self._shared.get(f"calls {words}", _CALLS_AGE_S, make))

    def _kept_calls(self, query: Query) -> tuple[int | None, list[dict[str, Any]]]:
        """Finished calls, and since when all are looked through; None: since a day ago."""
        recorder = self._stats.recorder
        first_us = recorder.reader.since_newest(_LOOKED_THROUGH)
        assert query.since_us is not None
        if first_us is None or first_us <= query.since_us:
            return None, recorder.latest(query, _CALLS)
        return first_us, recorder.latest(replace(query, since_us=first_us), _CALLS)

    async def _as_there(self, name: str, asked: PageAsked) -> Page:
        only(asked.query, ())
        route, there, age_s = _AS_THERE[name]

        async def make() -> bytes:
            page = await self._routes[route](there)
            assert isinstance(page, Page)
            return page.body

        return Page(await self._shared.get(name, age_s, make, _REST))
