"""How ``modelsplit top`` looks: values in, what rich draws out.

What clients call themselves, their models and their requests is text, never markup, and moves
no cursor.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from modelsplit_policy.quantity import in_digits
from modelsplit_proxy.cli.top_view import KEYS, ORDERS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

    from modelsplit_proxy.cli.top_view import Row, View

_LEVELS: Final = MappingProxyType(
    {"OK": "bold green", "DEGRADED": "bold yellow", "CRITICAL": "bold red"}
)
_KINDS: Final = MappingProxyType({"running": "green", "waiting": "yellow", "failed": "red"})
_BAR: Final = 10
_ID: Final = 8
# A terminal of fewer lines has one for all budgets.
_LOW: Final = 32
_NARROW: Final = 70
# Of the list of calls: the narrowest terminal that has the column, and its share of the rest.
_COLUMNS: Final[Mapping[str, tuple[int, int | None]]] = MappingProxyType(
    {
        "STATE": (0, None),
        "ROLE": (0, None),
        "MODEL": (0, 1),
        "CLIENT": (110, 1),
        "AGE": (0, None),
        "TOK/S": (_NARROW, None),
        "NOTE": (_NARROW, 2),
        "ID": (0, None),
    }
)
# Lines beside the list of calls: frames, headings, roles, budgets and keys.
_ROOM: Final = 16


def screen(
    stats: Mapping[str, Any], rows: Sequence[Row], view: View, width: int, height: int
) -> RenderableType:
    """The list. ``rows``: those to be shown."""
    spending = stats["spending"]
    budgets = _budgets(spending) if height >= _LOW else [_budgets_in_one_line(spending)]
    room = max(3, height - _ROOM - len(stats["health"]["causes"]) - len(budgets))
    parts = [
        _verdict(stats, view),
        _roles(stats, width),
        *budgets,
        _calls(rows, view, room, width),
        _foot(view),
    ]
    return Group(*parts)


def troubled(drawn: RenderableType, trouble: str) -> RenderableType:
    """What was seen last, under why nothing newer is."""
    return Group(_line(trouble, "bold red"), drawn) if trouble else drawn


def explanation(text: str, view: View, height: int) -> RenderableType:
    """One call explained, from the line that is scrolled to."""
    lines = text.splitlines()
    top = min(view.scroll, max(0, len(lines) - 3))
    shown = lines[top : top + height - 2]
    foot = Text("esc closes, arrows scroll", "dim")
    return Group(*(_line(line) for line in shown), Text(""), foot)


def keys() -> RenderableType:
    table = Table(title="Keys", box=None, show_header=False, title_justify="left")
    for name, what in KEYS:
        table.add_row(Text(name, "bold"), what)
    return Group(table, Text("any key goes back", "dim"))


def _plain(raw: str, style: str = "") -> Text:
    """Text whatever it holds: rich takes some control characters away, and leaves others."""
    return Text("".join(char if char.isprintable() else "\ufffd" for char in raw), style)


def _line(raw: str, style: str = "") -> Text:
    line = _plain(raw, style)
    line.no_wrap, line.overflow = True, "ellipsis"
    return line


def _verdict(stats: Mapping[str, Any], view: View) -> RenderableType:
    health, upstream = stats["health"], stats["upstream"]
    away = f"Ollama at {upstream['address']} does not answer"
    ollama = f"Ollama {upstream['version']}" if upstream["up"] else away
    everyone = stats["global"]
    head = _line("")
    head.append(f" {health['level']} ", f"{_LEVELS.get(health['level'], 'bold')} reverse")
    head.append_text(
        _plain(
            f"  {ollama}   {everyone['running']} of {everyone['seats']} seats"
            f"   lag {stats['event_loop_lag_p99_ms']:.1f} ms   {stats['cost']['usd']:.4f} USD"
        )
    )
    if view.paused:
        head.append("   paused", "bold yellow")
    lines = [head, *(_line(f"  {cause['text']}", "yellow") for cause in health["causes"])]
    if health["next"]:
        lines.append(_line(f"  next: {health['next']}", "cyan"))
    return Group(*lines, Text(""))


def _roles(stats: Mapping[str, Any], width: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    titles = ("ROLE", "SEATS", "RUN/CAP", "WAIT/MAX", "CALLS", "FAILED", "P50", "P95")
    shown = [
        title for title in titles if width >= _NARROW or title not in {"SEATS", "P50", "CALLS"}
    ]
    for title in shown:
        left = title in {"ROLE", "SEATS"}
        table.add_column(title, justify="left" if left else "right", no_wrap=True)
    for role, pool in stats["roles"].items():
        recent = stats["recent"]["roles"][role]
        cap = pool["seats"]
        cells = {
            "ROLE": Text(role, "bold"),
            "SEATS": _bar(pool["running"], cap),
            "RUN/CAP": Text(f"{pool['running']}/{'-' if cap is None else cap}"),
            "WAIT/MAX": Text(
                f"{pool['waiting']}/{pool['max_queue']}", "yellow" if pool["waiting"] else ""
            ),
            "CALLS": Text(str(recent["calls"])),
            "FAILED": Text(str(recent["failed"]), "red" if recent["failed"] else "dim"),
            "P50": Text(_seconds(recent["p50_ms"])),
            "P95": Text(_seconds(recent["p95_ms"])),
        }
        table.add_row(*(cells[title] for title in shown))
    return table


def _bar(value: float, most: float | None) -> Text:
    """How much of it is used; not in colour alone."""
    share = min(1.0, value / most) if most else 0.0
    full = round(share * _BAR)
    style = "green" if share < 1 else "yellow"
    return Text("█" * full, style) + Text("·" * (_BAR - full), "dim")


def _seconds(milliseconds: float | None) -> str:
    return "-" if milliseconds is None else f"{milliseconds / 1000:.2f} s"


def _budgets(spending: Mapping[str, Any]) -> list[RenderableType]:
    lines: list[RenderableType] = []
    for budget in spending["budgets"] if spending["open"] else ():
        for unit, most in (("calls", budget["max_calls"]), ("usd", budget["max_usd"])):
            if most is None:
                continue
            name = unit.upper() if unit == "usd" else unit
            used = f"{_used(budget, unit)} of {in_digits(most)} {name}"
            bar = _bar(budget[unit] if _is_known(budget) else most, most)
            line = _line("") + Text("budget  ", "dim") + bar
            lines.append(line + _plain(f"  {budget['name']}: {used} in {budget['window']}"))
    return lines


def _is_known(budget: Mapping[str, Any]) -> bool:
    return bool(budget.get("known", True))  # which an older modelsplit does not say


def _used(budget: Mapping[str, Any], unit: str) -> str:
    """How much of it, where it is known: not of a shared one while the Redis is away."""
    return in_digits(budget[unit]) if _is_known(budget) else "?"


def _budgets_in_one_line(spending: Mapping[str, Any]) -> RenderableType:
    words = [
        f"{budget['name']} {_used(budget, unit)}/{in_digits(most)} {name}"
        for budget in (spending["budgets"] if spending["open"] else ())
        for unit, most, name in (
            ("calls", budget["max_calls"], "calls"),
            ("usd", budget["max_usd"], "USD"),
        )
        if most is not None
    ]
    return _line(f"budgets  {', '.join(words) or 'none'}", "dim")


def _calls(rows: Sequence[Row], view: View, room: int, width: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True)
    titles = [title for title, (least, _) in _COLUMNS.items() if width >= least]
    for title in titles:
        table.add_column(
            title,
            justify="right" if title in {"AGE", "TOK/S"} else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=_COLUMNS[title][1],
        )
    first = max(0, min(view.chosen - room + 1, len(rows) - room))
    for at, row in enumerate(rows[first : first + room], first):
        chosen = "reverse" if at == min(view.chosen, len(rows) - 1) else ""
        cells = _cells(row)
        table.add_row(*(cells[title] for title in titles), style=chosen)
    if not rows:
        nothing = "nothing fits the filter" if view.words else "nobody runs, waits or failed"
        table.add_row(Text(nothing, "dim"))
    return table


def _cells(row: Row) -> dict[str, Text]:
    return {
        "STATE": _plain(row.state, _KINDS[row.kind]),
        "ROLE": _plain(row.role),
        "MODEL": _plain(row.model),
        "CLIENT": _plain(row.client),
        "AGE": Text(f"{row.age_ms / 1000:.1f} s"),
        "TOK/S": Text("-" if row.rate is None else f"{row.rate:.1f}"),
        "NOTE": _plain(row.note),
        "ID": _plain(row.id[:_ID], "dim"),
    }


def _foot(view: View) -> Text:
    if view.typing:
        return _line(f"filter: {view.words}█")
    words = f"   filter: {view.words}" if view.words else ""
    sort = f"s sort ({ORDERS[view.order][0]})"
    return _line(f"q quit  space pause  {sort}  / filter  enter explain  ? keys{words}", "dim")
