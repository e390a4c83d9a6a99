"""What budgets say to people and clients: sentences, header lines, fields.

A sentence names the budget, the numbers, and when it opens; it never says that waiting a
little would help, because clients switch their retries on that.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from modelsplit_policy.budgets import dollars
from modelsplit_policy.failures import ErrorCode, Failure, Reason, fitted
from modelsplit_policy.hints import asking
from modelsplit_policy.vocabulary import Provider

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from modelsplit_policy.approvals import Denied
    from modelsplit_policy.budgets import Exhausted, Standing
    from modelsplit_policy.config.model import BudgetPolicy

_NOT_APPROVED: Final = "Cloud Not Approved"
_USUAL_USD: Final = 5
_RESET: Final = "modelsplit budget reset --reason WHY"
_MINUTE_S: Final = 60
_HOUR_S: Final = 3_600
_DAY_S: Final = 86_400
# A model's name of usual length.
_MODEL_MAX: Final = 40
_BY_MAX: Final = 40


def refusal(exhausted: Exhausted, wall: float, asked_at: str = "") -> Failure:
    """Why a budget lets no call through, and when it will. ``wall``: the time now.

    ``asked_at``: where our commands ask, if not by themselves.
    """
    standing = exhausted.standing
    texts: dict[Reason, Callable[[Exhausted], str]] = {
        Reason.CALLS: _calls,
        Reason.USD: _money,
        Reason.COUNTS_LOST: _lost,
    }
    text = f'budget "{standing.name}" {texts[exhausted.reason](exhausted)}'
    if exhausted.opens_in_s is not None:
        text += f"{span(exhausted.opens_in_s)}, at {moment(wall + exhausted.opens_in_s, wall)}"
        if exhausted.reason is Reason.CALLS:
            text += "; budgets in the policy can allow more"
    failure = Failure(ErrorCode.BUDGET_EXHAUSTED, exhausted.reason, text, "Budget Exhausted")
    if exhausted.reason is Reason.COUNTS_LOST:
        return failure.and_then(f"sooner with: {asking(_RESET, asked_at)}")
    return failure


def _calls(exhausted: Exhausted) -> str:
    standing = exhausted.standing
    if exhausted.opens_in_s is None:
        return "allows no calls at all; raise its calls in the policy"
    used = f"{standing.calls} of {standing.max_calls} calls in {standing.window}"
    return f"is used up: {used}; the next one is free in "


def _money(exhausted: Exhausted) -> str:
    standing = exhausted.standing
    cost, limit = usd(exhausted.nano_usd), usd(standing.max_nano_usd or 0)
    if exhausted.opens_in_s is None:
        return (
            f"is {limit} USD in {standing.window}, and this call alone may cost {cost}; "
            "ask for fewer tokens"
        )
    left = usd(standing.nano_usd_left or 0)
    return (
        f"has {left} of {limit} USD left in {standing.window}, and this call may cost {cost}; "
        "enough is free in "
    )


def _lost(exhausted: Exhausted) -> str:
    del exhausted
    return "lost its counts with a damaged state file; it opens in "


def unavailable(why: str, asked_at: str = "") -> Failure:
    """Nothing can be counted, so nothing that must be counted is sent.

    ``asked_at``: where our commands ask, if not by themselves.
    """
    text = f"this call must be counted, and the state file cannot be used: {why[:80]}"
    return _unavailable(text, asked_at)


def shared_away(why: str, asked_at: str = "") -> Failure:
    """The same of budgets that several proxies count together."""
    return _unavailable(f"this call must be counted in the shared Redis, but {why[:80]}", asked_at)


def _unavailable(text: str, asked_at: str) -> Failure:
    return Failure(
        ErrorCode.BUDGET_EXHAUSTED,
        Reason.LEDGER_UNAVAILABLE,
        fitted(f"{text}; nothing was sent", f"try `{asking('modelsplit doctor', asked_at)}`"),
        "Budget Ledger Unavailable",
    )


def not_approved(denied: Denied, model: str, nano_usd: int, asked_at: str = "") -> Failure:
    """Why no approval covers a call of ``model`` that may cost so much.

    ``asked_at``: where our commands ask, if not by themselves.
    """
    name, approval = model[:_MODEL_MAX], denied.approval
    text = f"{name} runs in the cloud and no approval is recorded"
    if approval is not None:
        by = approval.by[:_BY_MAX]
        texts = {
            Reason.APPROVAL_EXPIRED: f"the approval of the cloud by {by} is over",
            Reason.APPROVAL_REVOKED: f"the approval of the cloud by {by} was revoked",
            Reason.APPROVAL_SPENT: (
                f"{usd(denied.left)} of the approved {usd(approval.nano_usd)} USD are left, and "
                f"{name} may cost {usd(nano_usd)} for this call"
            ),
        }
        text = texts[denied.reason]
    failure = Failure(ErrorCode.BUDGET_NOT_APPROVED, denied.reason, text, _NOT_APPROVED)
    # One approval covers a call, and not what is left of several.
    enough = max(_USUAL_USD, math.ceil(dollars(nano_usd)))
    approve = f"modelsplit budget approve --usd {enough} --days 7 --reason WHY"
    return failure.and_then(f"approve with: {asking(approve, asked_at)}")


def price_unknown(model: str) -> Failure:
    name = model[: _MODEL_MAX - 1]  # said twice
    return Failure(
        ErrorCode.BUDGET_NOT_APPROVED,
        Reason.PRICE_UNKNOWN,
        f"nobody knows the price of {name}, so no approval covers it; set "
        f'models["{name}"].price in the policy, as in {{"input": 3, "output": 15}}',
        _NOT_APPROVED,
    )


def announced(budgets: Iterable[BudgetPolicy]) -> list[str]:
    """A line for each budget that refuses calls of this machine, whoever makes them."""
    lines = []
    for budget in budgets:
        if budget.calls is None or budget.shadow or budget.provider is Provider.CLOUD:
            continue
        of = ", ".join(budget.models or ()) or budget.role or "all models"
        many = "1 call" if budget.calls == 1 else f"{budget.calls} calls"
        lines.append(
            f"budget {budget.name}: {many} in {budget.window} to {of}, whoever asks; "
            f'"budgets" in the policy changes that'
        )
    return lines


def header_lines(standings: Iterable[Standing]) -> list[bytes]:
    """``RateLimit-Policy`` and ``RateLimit`` for the budgets that concern a call; none for none.

    Draft-ietf-httpapi-ratelimit-headers. ``t`` is when the next of what is counted leaves the
    window. A budget of money alone is told in cents, with a unit of our own.
    """
    enforced = [standing for standing in standings if not standing.shadow]
    if not enforced:
        return []
    policies = ", ".join(
        f'"{standing.name}";{_quota(standing)};w={standing.window_s}' for standing in enforced
    )
    states = ", ".join(
        f'"{standing.name}";r={_left(standing)}{_frees(standing)}' for standing in enforced
    )
    text = f"RateLimit-Policy: {policies}\r\nRateLimit: {states}\r\n"
    return [text.encode("ascii")]


def _quota(standing: Standing) -> str:
    if standing.max_calls is not None:
        return f"q={standing.max_calls}"
    return f'q={_cents(standing.max_nano_usd)};qu="us-cents"'


def _left(standing: Standing) -> int:
    """Calls, or cents; no calls are left where no money is."""
    if standing.calls_left is None:
        return _cents(standing.nano_usd_left)
    return 0 if standing.nano_usd_left == 0 else standing.calls_left


def _cents(nano_usd: int | None) -> int:
    return int(dollars(nano_usd or 0) * 100)


def _frees(standing: Standing) -> str:
    return "" if standing.frees_in_s is None else f";t={math.ceil(standing.frees_in_s)}"


def fields(standing: Standing) -> dict[str, Any]:
    """One budget as plain values; money in US dollars."""
    limit = standing.max_nano_usd
    frees_in_s = standing.frees_in_s
    return {
        "name": standing.name,
        "window": standing.window,
        "shadow": standing.shadow,
        "calls": standing.calls,
        "max_calls": standing.max_calls,
        "usd": dollars(standing.nano_usd),
        "usd_reserved": dollars(standing.nano_usd_reserved),
        "max_usd": None if limit is None else dollars(limit),
        "frees_in_s": None if frees_in_s is None else round(frees_in_s, 3),
        "counts_lost": standing.presumed,
        "known": standing.lease is None,
        "calls_left": standing.calls_left,
        "usd_left": _dollars_or_none(standing.nano_usd_left),
    }


def _dollars_or_none(nano_usd: int | None) -> float | None:
    return None if nano_usd is None else dollars(nano_usd)


def line(fields: dict[str, Any]) -> str:
    """The same in one line for people, from its fields."""
    is_known = fields.get("known", True)  # which older records do not have
    parts = []
    if fields["max_calls"] is not None:
        parts.append(f"{fields['calls'] if is_known else '?'}/{fields['max_calls']} calls")
    if fields["max_usd"] is not None:
        parts.append(_dollars(fields) if is_known else f"?/{amount(fields['max_usd'])} USD")
    text = f"{fields['name']}  {', '.join(parts)} in {fields['window']}"
    if not is_known:
        text += f"; the shared Redis is away, {_on_lease(fields)}"
    elif fields["frees_in_s"] is not None:
        text += f", next free in {span(fields['frees_in_s'])}"
    if fields["counts_lost"]:
        text += "; taken as used up: its counts were lost"
    return f"{text}  (shadow)" if fields["shadow"] else text


def _on_lease(fields: dict[str, Any]) -> str:
    """What may be spent though nobody knows how much is used."""
    left = []
    if fields["max_calls"] is not None:
        left.append(f"{fields['calls_left']} calls")
    if fields["max_usd"] is not None:
        left.append(f"{amount(fields['usd_left'])} USD")
    has_some = 0 not in (fields["calls_left"], fields["usd_left"])
    return f"{' and '.join(left)} may be spent here" if has_some else "nothing is sent"


def _dollars(fields: dict[str, Any]) -> str:
    """What was spent of how much at most, and what is only reserved for calls under way."""
    reserved = fields.get("usd_reserved", 0.0)  # which older records do not have
    spent = max(0.0, fields["usd"] - reserved)
    text = f"{amount(spent)}/{amount(fields['max_usd'])} USD"
    return f"{text} and {amount(reserved)} reserved" if reserved else text


def usd(nano_usd: int) -> str:
    """Dollars with as many digits as small sums need: ``5.00``, ``0.0031``."""
    return amount(dollars(nano_usd))


def amount(value: float) -> str:
    """US dollars as people write them; of a small sum its first two digits."""
    return f"{value:.2f}" if value == 0 or value >= 0.1 else f"{value:.2g}"


def span(seconds: float) -> str:
    """How long, in the unit people would use: ``40 s``, ``14 min``, ``5 h``, ``3 days``."""
    if seconds < 2 * _MINUTE_S:
        return f"{math.ceil(seconds)} s"
    if seconds < 2 * _HOUR_S:
        return f"{math.ceil(seconds / _MINUTE_S)} min"
    if seconds < 2 * _DAY_S:
        return f"{math.ceil(seconds / _HOUR_S)} h"
    return f"{math.ceil(seconds / _DAY_S)} days"


def moment(wall: float, now: float) -> str:
    """``03:14 UTC``, with the date unless that is today's."""
    then, today = datetime.fromtimestamp(wall, UTC), datetime.fromtimestamp(now, UTC)
    form = "%H:%M UTC" if then.date() == today.date() else "%Y-%m-%d %H:%M UTC"
    return then.strftime(form)
