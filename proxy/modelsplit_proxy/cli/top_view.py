"""What the viewer of ``modelsplit top`` has chosen, and the rows that it chooses from.

Keys and values in, values out: no terminal here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from modelsplit_proxy.records.explain import hold_in_words
from modelsplit_proxy.records.live import no_answer
from modelsplit_proxy.runtime import local_time

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class Key(StrEnum):
    """Keys that are no letter, by the bytes that terminals send for them."""

    UP = "\x1b[A"
    DOWN = "\x1b[B"
    PAGE_UP = "\x1b[5~"
    PAGE_DOWN = "\x1b[6~"
    ENTER = "\r"
    ESCAPE = "\x1b"
    BACKSPACE = "\x7f"
    SPACE = " "


_KEY: Final = re.compile(r"\x1b(?:\[[0-9;]*[A-Za-z~]|O[A-Z])|.", re.DOTALL)
# What some terminals send for the same.
_ALIASES: Final[Mapping[str, str]] = MappingProxyType(
    {"\n": Key.ENTER, "\x08": Key.BACKSPACE, "\x1bOA": Key.UP, "\x1bOB": Key.DOWN}
)
_WORDS_MAX: Final = 60
_PAGE: Final = 10
_STEPS: Final[Mapping[str, int]] = MappingProxyType(
    {Key.UP: -1, Key.DOWN: 1, Key.PAGE_UP: -_PAGE, Key.PAGE_DOWN: _PAGE}
)
KEYS: Final = (
    ("q", "quit"),
    ("space", "pause, go on"),
    ("s", "sort by the next column"),
    ("/", "filter by role, model, client or id; enter ends, esc clears"),
    ("up, down", "choose a call"),
    ("enter", "explain it; esc closes"),
    ("?", "these keys"),
)


class Row(NamedTuple):
    """One call of the list. ``kind``: running, waiting or failed; ``state``: how far it has come.

    ``age_ms``: how long it has run or waited; of one that failed, how long it took.
    ``rate``: tokens a second so far; None: not known. ``note``: why it waits, or failed.
    """

    id: str
    kind: str
    state: str
    role: str
    model: str
    client: str
    age_ms: float
    rate: float | None
    note: str


@dataclass(frozen=True, slots=True)
class View:
    """``order``: which of ``ORDERS``. ``words``: what rows must contain.

    ``chosen``: of the rows that are shown. ``opened``: the id of the call that is explained;
    None: the list is shown. ``scroll``: how many of its lines are above the screen.
    """

    order: int = 0
    words: str = ""
    typing: bool = False
    paused: bool = False
    chosen: int = 0
    opened: str | None = None
    scroll: int = 0
    helping: bool = False
    leaving: bool = False


_KINDS: Final = MappingProxyType({"running": 0, "waiting": 1, "failed": 2})
ORDERS: Final[tuple[tuple[str, Callable[[Row], Any]], ...]] = (
    ("state", lambda row: _KINDS[row.kind]),
    ("age", lambda row: -row.age_ms),
    ("role", lambda row: row.role),
    ("model", lambda row: row.model),
    ("client", lambda row: row.client),
)


def rows(stats: Mapping[str, Any], failed: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Who runs, who waits in line, and who failed lately, in that order.

    ``stats``: of ``/stats``; ``failed``: calls of ``/requests``.
    """
    running = [call for call in stats["running"] if call["state"] != "queued"]
    return [
        *(_running(call) for call in running),
        *(_waiting(waiter) for waiter in stats["waiters"]),
        *(_failed(call) for call in failed),
    ]


def _running(call: Mapping[str, Any]) -> Row:
    note = "" if call["silent_ms"] is None else no_answer(call["state"])
    return Row(
        id=call["request_id"],
        kind="running",
        state=call["state"],
        role=call["llm_role"] or "-",
        model=call["model"] or "-",
        client=call.get("client") or "-",
        age_ms=call["age_ms"],
        rate=call.get("tokens_per_s"),
        note=note,
    )


def _waiting(waiter: Mapping[str, Any]) -> Row:
    expected = waiter["expected_wait_ms"]
    soon = "" if expected is None else f", about {expected / 1000:.1f} s more"
    return Row(
        id=waiter["request_id"],
        kind="waiting",
        state=f"waits, place {waiter['place']}",
        role=waiter["llm_role"],
        model=waiter["model"],
        client=waiter["client"],
        age_ms=waiter["waited_ms"],
        rate=None,
        note=f"{hold_in_words(str(waiter['hold']))}{soon}",
    )


def _failed(call: Mapping[str, Any]) -> Row:
    return Row(
        id=call["request_id"],
        kind="failed",
        state=f"failed {local_time.time_of_day(str(call['ts']))}",
        role=call["llm_role"] or "-",
        model=call["llm_model"] or call["requested_model"] or "-",
        client=call["client"] or "-",
        age_ms=call["call_e2e_latency_ms"] or 0.0,
        rate=None,
        note=f"{call['reason'] or ''} {call['outcome']}".strip(),
    )


def shown(all_rows: Sequence[Row], view: View) -> list[Row]:
    """Those that the viewer wants to see, in the chosen order."""
    words = view.words.lower()
    fitting = [row for row in all_rows if words in _text(row)]
    return sorted(fitting, key=ORDERS[view.order][1])


def _text(row: Row) -> str:
    words = (row.id, row.kind, row.state, row.role, row.model, row.client, row.note)
    return "\n".join(words).lower()


def keys(raw: str) -> list[str]:
    """The keys in what a terminal sent at once."""
    return _KEY.findall(raw)


def pressed(view: View, key: str, listed: Sequence[Row]) -> View:
    """What the viewer sees after a key. ``listed``: the rows that are shown."""
    key = _ALIASES.get(key, key)
    if view.typing:
        return _typed(view, key)
    if view.helping:
        return replace(view, helping=False)
    if view.opened is not None:
        return _read(view, key)
    return _listed(view, key, listed)


def _typed(view: View, key: str) -> View:
    if key == Key.ENTER:
        return replace(view, typing=False)
    if key == Key.ESCAPE:
        return replace(view, typing=False, words="", chosen=0)
    if key == Key.BACKSPACE:
        return replace(view, words=view.words[:-1], chosen=0)
    if key.isprintable() and len(view.words) < _WORDS_MAX:
        return replace(view, words=view.words + key, chosen=0)
    return view


def _read(view: View, key: str) -> View:
    """While a call is explained."""
    if key in {Key.ESCAPE, Key.ENTER, "q"}:
        return replace(view, opened=None, scroll=0)
    step = _PAGE if key == Key.SPACE else _STEPS.get(key, 0)
    return replace(view, scroll=max(0, view.scroll + step))


def _listed(view: View, key: str, listed: Sequence[Row]) -> View:
    last = max(0, len(listed) - 1)
    chosen = min(view.chosen, last)
    if key in _STEPS:
        return replace(view, chosen=min(last, max(0, chosen + _STEPS[key])))
    changes: dict[str, dict[str, Any]] = {
        "q": {"leaving": True},
        Key.SPACE: {"paused": not view.paused},
        "s": {"order": (view.order + 1) % len(ORDERS), "chosen": 0},
        "/": {"typing": True},
        "?": {"helping": True},
        Key.ESCAPE: {"words": "", "chosen": 0},
        Key.ENTER: {"opened": listed[chosen].id, "scroll": 0} if listed else {},
    }
    return replace(view, **changes.get(key, {}))
