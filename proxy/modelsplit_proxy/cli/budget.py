"""``modelsplit budget``: what stands where, and who may spend what in the cloud."""

from __future__ import annotations

import math
import os
import pwd
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, Final

from modelsplit_policy.approvals import ApprovalAction, Approvals, Change
from modelsplit_policy.budget_clock import resume
from modelsplit_policy.budgets import Budgets, dollars, nano
from modelsplit_policy.config.parser import parse
from modelsplit_policy.config.problems import PolicyError
from modelsplit_policy.model_names import runs_in_cloud
from modelsplit_policy.prices import cloud_models
from modelsplit_policy.quantity import in_digits
from modelsplit_policy.vocabulary import Provider, Role
from modelsplit_proxy.admin import status_text
from modelsplit_proxy.cli import admin_client, state_access, status
from modelsplit_proxy.cli.command import JSON, Argument, Command, settings_of
from modelsplit_proxy.cli.output import CommandError, ExitCode, show, talk
from modelsplit_proxy.config import policy_file, prices
from modelsplit_proxy.config.settings import SettingError
from modelsplit_proxy.limits import budget_store, egress_store
from modelsplit_proxy.protocol import budget_text
from modelsplit_proxy.runtime import local_time
from modelsplit_proxy.runtime.clock import SystemClock, boot_id, machine_clocks, rfc3339
from modelsplit_proxy.storage.state_file import FILE_NAME, NoStateError, StoreError
from modelsplit_proxy.watch import installed_models

if TYPE_CHECKING:
    import argparse
    import sqlite3
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from modelsplit_policy.budget_clock import ClockReading
    from modelsplit_policy.config.model import Policy
    from modelsplit_proxy.config.settings import Settings

_EXAMPLES: Final = """\
examples:
  modelsplit budget show
  modelsplit budget approve --usd 5 --days 7 --reason "trial of the planner"
  modelsplit budget revoke --by kim --reason "done"
  sudo modelsplit budget show                      a service of systemd's
  modelsplit budget show --state /var/lib/modelsplit
"""
# Where a service of systemd's, or in a container, has its state.
_SERVICES: Final = (Path("/var/lib/modelsplit"),)
_VARIABLES: Final = ("MODELSPLIT_STATE", "STATE_DIRECTORY")
_DAY_S: Final = 86_400.0
_DAYS_MAX: Final = 366.0
_EGRESS_DAYS_MAX: Final = 36_600.0
_USD_MAX: Final = 1_000_000.0
_TEXT_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class Desk:
    """Where the state is and what time it is there. ``running``: the proxy's own statistics.

    ``whose``: why it is that directory, in words. ``named``: whether the flag says so.
    """

    directory: Path
    whose: str
    named: bool
    now: ClockReading
    running: dict[str, Any] | None

    @property
    def file(self) -> Path:
        return self.directory / FILE_NAME


def run(args: argparse.Namespace, settings: Settings, environ: Mapping[str, str]) -> int:
    """Do one verb; returns the exit code. SettingError, PolicyError or StoreError."""
    desk = _desk(args, settings, environ)
    if args.verb == "egress":
        return _egress(desk, args)
    if args.verb == "show":
        return _show(desk, args, settings, environ)
    by, reason = _text("--by", args.by or _user(environ)), _text("--reason", args.reason)
    change = Change(0, 0.0, desk.now.wall, ApprovalAction(args.verb), by, reason)
    if args.verb == "approve":
        return _approve(desk, args, change, settings, environ)
    if args.verb == "revoke":
        return _revoke(desk, args, change, settings)
    return _reset(desk, args, change)


def _desk(args: argparse.Namespace, settings: Settings, environ: Mapping[str, str]) -> Desk:
    """The state of the proxy that runs, unless another is named or none does.

    CommandError where none answers and several directories might be meant.
    """
    now = machine_clocks(boot_id(settings.boot_id))()
    if args.state is not None:
        return Desk(settings.state, "by --state", True, now, None)
    stats = status.ask(settings.admin)
    if isinstance(stats, dict):
        directory = Path(stats["spending"]["state"])
        return Desk(directory, "the running proxy's", False, now, stats)
    named = next((name for name in _VARIABLES if environ.get(name)), None)
    if named is not None:
        return Desk(settings.state, f"by {named}", False, now, None)
    _refuse_to_guess(settings.state, args.verb, stats)
    return Desk(settings.state, "yours; no proxy answers", False, now, None)


def _refuse_to_guess(own: Path, verb: str, why: str) -> None:
    """CommandError where no proxy can be asked, for ``why``, and another's state may be meant."""
    theirs = [place for place in _SERVICES if place != own and _is_there(place)]
    is_own = state_access.is_there(own)
    if not theirs and (is_own or verb == "show"):
        return
    places = [*theirs, own] if is_own else theirs
    known = f", as in {' or '.join(f'--state {place}' for place in places)}" if places else ""
    raise CommandError(
        f"{why}; so it is not known which state file is meant: name the proxy with --admin "
        f"ADDRESS, or the file with --state DIR{known}; "
        "a first start of `modelsplit serve` makes one",
        ExitCode.FAILED,
    )


def _is_there(directory: Path) -> bool:
    try:
        return directory.exists()
    except OSError:
        return True


def _find(desk: Desk) -> None:
    """Say which file it is; a mistyped place is not one where nothing was counted. StoreError."""
    if state_access.is_there(desk.directory):
        talk(f"state file {desk.file} ({desk.whose})")
        return
    path = desk.file
    if desk.running is not None:
        raise StoreError(
            f"no state file there: {path}, where the running proxy has it; "
            "if it runs in a container, run this command in it"
        )
    if desk.named:
        raise NoStateError(f"no state file there: {path}; --state names the one of `serve`")
    talk(f"no state file there yet: {path}; no modelsplit has served from it")


def _writing(desk: Desk) -> AbstractContextManager[sqlite3.Connection]:
    _find(desk)
    return state_access.writing(desk.directory, SystemClock())


# 1. Changes.


def _approve(
    desk: Desk,
    args: argparse.Namespace,
    change: Change,
    settings: Settings,
    environ: Mapping[str, str],
) -> int:
    usd = _number("--usd", args.usd, _USD_MAX)
    seconds = _number("--days", args.days, _DAYS_MAX) * _DAY_S
    with _writing(desk) as db:
        now = resume(budget_store.anchor(db), desk.now)
        added = _with(change, at=now, until=now + seconds, nano_usd=nano(usd))
        number = budget_store.add_change(db, added)
        shares = budget_store.shares(db)
    until = desk.now.wall + seconds
    fields = {"id": number, "usd": usd, "until": rfc3339(until), "by": change.by}
    fields["reason"] = change.reason
    fields["state"] = str(desk.directory)
    words = f"{budget_text.amount(usd)} USD for the cloud until {local_time.minute_of(until)}"
    elsewhere = _elsewhere(desk, settings, shares=shares)
    lines = [f"approval {number}: {words}, {_signed(change)}", *elsewhere]
    show(fields, lines, as_json=args.json)
    for warning in _still_refused(desk, settings, environ):
        talk(f"warning: {warning}")
    return ExitCode.OK


def _still_refused(desk: Desk, settings: Settings, environ: Mapping[str, str]) -> Iterator[str]:
    """Why calls of the cloud are refused though they are approved."""
    policy = _policy(desk, settings, environ)
    gaps = [*installed_models.cloud_gaps(policy)]
    yield from gaps
    known = prices.read(policy, SystemClock().wall()).prices
    for model in cloud_models(policy):
        if known.of(model, Provider.CLOUD) is None:
            yield f"{Role.CLOUD}: {budget_text.price_unknown(model).message}"
    priced = [name for name, row in policy.models.items() if row.price and runs_in_cloud(name)]
    if not policy.cloud.providers and not priced:
        yield (
            "no model of Ollama's own cloud has a price, and without one its calls are refused; "
            'as in models["gpt-oss:120b-cloud"].price: {"input": 0, "output": 0}'
        )
    stats = status.ask(settings.admin) if desk.running is not None else None
    refused = stats["spending"].get("cloud_refused") if isinstance(stats, dict) else None
    if refused and not gaps and "nobody knows the price" not in refused:
        yield f"{Role.CLOUD}: {refused}"


def _elsewhere(desk: Desk, settings: Settings, *, shares: bool) -> list[str]:
    """When the modelsplits that count budgets together know of a change that was just written.

    ``shares``: whether the one with this state has ever counted together with others.
    """
    if desk.running is None:
        words = "the other modelsplits know of it once one runs with this state file"
        return [words] if shares else []
    # It tells the others before it answers.
    stats = status.ask(settings.admin)
    shared = stats["spending"].get("shared") if isinstance(stats, dict) else None
    if not shared:
        return []
    if shared["error"]:
        words = f"the other modelsplits know of it once the shared Redis is back: {shared['error']}"
        return [words, f"next     {shared['next']}"]
    return [f"on all {shared['proxies']} modelsplits that count together"]


def _policy(desk: Desk, settings: Settings, environ: Mapping[str, str]) -> Policy:
    """The running proxy's, else the one that ``serve`` would use here."""
    if desk.running is not None:
        with suppress(admin_client.NotRunningError, PolicyError, KeyError):
            _, shown = admin_client.get(settings.admin, "/policy")
            return parse(shown["policy"])
    return policy_file.load(policy_file.find_policy(settings.policy, environ)).policy


def _revoke(desk: Desk, args: argparse.Namespace, change: Change, settings: Settings) -> int:
    with _writing(desk) as db:
        now = resume(budget_store.anchor(db), desk.now)
        valid = {approval.id for approval in Approvals(budget_store.changes(db)).in_force(now)}
        wanted = valid if args.id is None else valid & {args.id}
        for number in sorted(wanted):
            budget_store.add_change(db, _with(change, at=now, target=number))
        shares = budget_store.shares(db)
    if not wanted:
        which = "no approval is" if args.id is None else f"approval {args.id} is not"
        show_them = f"modelsplit budget show --state {quote(str(desk.directory))}"
        raise _nothing(f"{which} in force in {desk.file}; see: {show_them}")
    lines = [f"approval {number} is revoked" for number in sorted(wanted)]
    lines += _elsewhere(desk, settings, shares=shares)
    fields = {"revoked": sorted(wanted), "state": str(desk.directory)}
    show(fields, lines, as_json=args.json)
    return ExitCode.OK


def _reset(desk: Desk, args: argparse.Namespace, change: Change) -> int:
    with _writing(desk) as db:
        lost_at = Approvals(budget_store.changes(db)).lost_at()
        if lost_at is not None:
            now = resume(budget_store.anchor(db), desk.now)
            budget_store.add_change(db, _with(change, at=now))
    if lost_at is None:
        raise _nothing(f"no counts were lost in {desk.file}, so there is nothing to reset")
    text = "what was lost is taken as not used, by a running proxy too"
    fields = {"reset": True, "state": str(desk.directory)}
    show(fields, [text], as_json=args.json)
    return ExitCode.OK


def _with(change: Change, **changes: Any) -> Change:
    fields = {name: getattr(change, name) for name in Change.__slots__}
    return Change(**(fields | changes))


# 2. Showing.


def _show(
    desk: Desk, args: argparse.Namespace, settings: Settings, environ: Mapping[str, str]
) -> int:
    policy = policy_file.load(policy_file.find_policy(settings.policy, environ)).policy
    budgets = Budgets(policy.budgets)
    _find(desk)
    book = budget_store.Book(desk.now.wall, 0, (), {}, ())
    with state_access.reading(desk.directory) as db:
        shares = db is not None and budget_store.shares(db)
        if db is not None:
            book = budget_store.read(db, desk.now, budgets.longest_s)
    for reservation in book.charges:
        budgets.restore(reservation)
    approvals = Approvals(book.changes, book.spent)
    budgets.presume_used(approvals.lost_at())
    standings = [budget_text.fields(one) for one in budgets.standing(book.budget_time)]
    if desk.running is not None:
        # The running proxy goes by its own policy.
        standings = desk.running["spending"]["budgets"]
    left = _left_of_approvals(desk)
    fields = {
        "state": str(desk.directory),
        "running": desk.running is not None,
        "budgets": standings,
        "approvals": [
            {
                "id": one.id,
                "usd": dollars(one.nano_usd),
                "usd_left": left.get(one.id, dollars(approvals.left(one))),
                "until": rfc3339(desk.now.wall + one.until - book.budget_time),
                "by": one.by,
                "reason": one.reason,
            }
            for one in approvals.in_force(book.budget_time)
        ],
        "history": [_change(one) for one in book.changes],
    }
    show(fields, [*_lines(fields), *_together(desk, shares=shares)], as_json=args.json)
    return ExitCode.OK


def _together(desk: Desk, *, shares: bool) -> Iterator[str]:
    """What is known of those who count the same budgets."""
    if desk.running is None and shares:
        yield "shared   what others count is not known: no modelsplit runs with this state file"
    if (shared := (desk.running or {}).get("spending", {}).get("shared")) is not None:
        yield from status_text.shared_lines(shared)
        if shared["error"]:
            yield f"next     {shared['next']}"


def _left_of_approvals(desk: Desk) -> dict[int, float]:
    """US dollars left of each, where the running proxy charges them with others."""
    spending = (desk.running or {}).get("spending", {})
    if not spending.get("shared"):
        return {}
    return {row["id"]: row["usd_left"] for row in spending.get("approved", ())}


def _egress(desk: Desk, args: argparse.Namespace) -> int:
    """What has left for clouds, and what it cost; never what was in it."""
    _find(desk)
    since = desk.now.wall - _number("--days", args.days, _EGRESS_DAYS_MAX) * _DAY_S
    left: list[egress_store.Left] = []
    with state_access.reading(desk.directory) as db:
        if db is not None:
            left = egress_store.read(db, since)
    entries = [_left(one) for one in left]
    lines = [_left_line(entry) for entry in entries] or ["nothing has left"]
    show({"state": str(desk.directory), "egress": entries}, lines, as_json=args.json)
    return ExitCode.OK


def _left(row: egress_store.Left) -> dict[str, Any]:
    leaving = row.leaving
    return {
        "at": rfc3339(leaving.wall),
        "request_id": leaving.request_id,
        "attempt": leaving.attempt,
        "client": leaving.client,
        "role": leaving.role,
        "why": leaving.why,
        "condition": leaving.condition,
        "approval": leaving.approval,
        "provider": leaving.provider,
        "model": leaving.model,
        "bytes": leaving.size,
        "redacted": leaving.redacted,
        "sent": row.status != egress_store.NOT_SENT,
        "status": row.status or None,
        "prompt_tokens": row.prompt_tokens,
        "output_tokens": row.output_tokens,
        "tokens_estimated": row.estimated,
        "usd": row.usd,
    }


def _left_line(entry: dict[str, Any]) -> str:
    why = entry["why"] if entry["condition"] is None else f"{entry['why']} {entry['condition']}"
    approval = "none" if entry["approval"] is None else entry["approval"]
    tokens = f"{_known(entry['prompt_tokens'])}+{_known(entry['output_tokens'])}"
    usd = "?" if entry["usd"] is None else f"{entry['usd']:.6f}"
    status = _known(entry["status"]) if entry["sent"] else "not sent"
    taken = f", {entry['redacted']} taken out" if entry["redacted"] else ""
    return (
        f"{local_time.minute(entry['at'])}  {entry['request_id']}  {entry['client']} "
        f"({why}, approval {approval})  {entry['model']} at {entry['provider']}  "
        f"{entry['bytes']} bytes{taken}, {tokens} tokens, {usd} USD, {status}"
    )


def _known(value: object) -> object:
    return "?" if value is None else value


def _change(change: Change) -> dict[str, Any]:
    approves = change.action is ApprovalAction.APPROVE
    return {
        "id": change.id,
        "at": rfc3339(change.wall),
        "action": change.action,
        "usd": dollars(change.nano_usd) if approves else None,
        "days": (change.until - change.at) / _DAY_S if approves else None,
        "revokes": change.target,
        "by": change.by,
        "reason": change.reason,
    }


def _lines(fields: dict[str, Any]) -> Iterator[str]:
    for budget in fields["budgets"]:
        yield f"budget   {budget_text.line(budget)}"
    for entry in fields["approvals"]:
        yield (
            f"approval {entry['id']}  {budget_text.amount(entry['usd_left'])} of "
            f"{budget_text.amount(entry['usd'])} USD left until "
            f"{local_time.minute(entry['until'])}, by {entry['by']}: {entry['reason']}"
        )
    if not fields["approvals"]:
        yield "approval none: the cloud is closed"
    if fields["history"]:
        yield ""
    for entry in fields["history"]:
        when = local_time.minute(entry["at"])
        yield f"{when}  {_what(entry)}, by {entry['by']}: {entry['reason']}"


def _what(entry: dict[str, Any]) -> str:
    if entry["action"] == ApprovalAction.APPROVE:
        days = "1 day" if entry["days"] == 1 else f"{in_digits(entry['days'])} days"
        return f"approve {entry['id']}: {budget_text.amount(entry['usd'])} USD for {days}"
    return (
        f"revoke {entry['revokes']}"
        if entry["action"] == ApprovalAction.REVOKE
        else str(entry["action"])
    )


# 3. Words in and out.


def _signed(change: Change) -> str:
    return f"by {change.by}: {change.reason}"


def _number(flag: str, value: float, most: float) -> float:
    if not (math.isfinite(value) and 0 < value <= most):
        raise SettingError(f"{flag} {in_digits(value)} is not more than 0 and at most {most:.0f}")
    return value


def _text(flag: str, raw: str) -> str:
    if not raw.strip() or len(raw) > _TEXT_MAX or not raw.isprintable():
        raise SettingError(f"{flag} must be 1 to {_TEXT_MAX} printable characters")
    return raw.strip()


def _user(environ: Mapping[str, str]) -> str:
    """Who is at the keyboard: a login name, or its number where it has none."""
    if environ.get("SUDO_USER"):
        return environ["SUDO_USER"]
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _nothing(text: str) -> CommandError:
    return CommandError(text, ExitCode.FAILED)


# 4. The command.


def _command(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    return run(args, settings_of(args, environ), environ)


def _verb(name: str, summary: str, example: str, *arguments: Argument) -> Command:
    description = f"{summary[0].upper()}{summary[1:]}. Exit 0: done; 1: not; 2: wrong usage."
    arguments = (*arguments, JSON, _STATE, _ADMIN)
    example = f"example: modelsplit budget {name}{example}"
    return Command(name, summary, description, _command, arguments, example=example)


_STATE: Final = Argument(
    "--state", type=Path, metavar="DIR", help="default: where the running proxy keeps it"
)
_ADMIN: Final = Argument("--admin", metavar="ADDRESS", help="the running proxy's admin listener")
_BY: Final = Argument("--by", help="who says so (default: your login name)")
_REASON: Final = Argument("--reason", required=True, help="why; kept for ever")
COMMAND: Final = Command(
    "budget",
    "where budgets stand; who may spend what in the cloud",
    "Budgets, and approvals of the cloud. Works on the state file, beside a running proxy. "
    "Exit 0: done; 1: not; 2: wrong usage.",
    verbs=(
        _verb(
            "show",
            "where every budget stands, approvals and their history",
            "",
            Argument("--policy", type=Path, metavar="FILE", help="whose budgets, without a proxy"),
        ),
        _verb(
            "egress",
            "what has left for clouds: who, why, how much; never what was in it",
            " --days 1",
            Argument("--days", type=float, default=30.0, help="since when (default: 30)"),
        ),
        _verb(
            "approve",
            "allow the cloud: so much money, for so long",
            ' --usd 5 --days 7 --reason "a trial"',
            Argument("--usd", type=float, required=True, help="US dollars, at most"),
            Argument("--days", type=float, required=True, help="for how many days from now"),
            _BY,
            _REASON,
        ),
        _verb(
            "revoke",
            "take approvals back",
            ' --reason "done"',
            Argument("id", nargs="?", type=int, metavar="ID", help="default: all in force"),
            _BY,
            _REASON,
        ),
        _verb(
            "reset",
            "after a damaged state file: take what it had counted as not used",
            ' --reason "the disk was replaced"',
            _BY,
            _REASON,
        ),
    ),
    example=_EXAMPLES,
)
