"""What is known of the service, and what is said of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelsplit_policy.failures import ERRORS, ErrorCode, Reason
from modelsplit_policy.health import Level, Signal, Trouble
from modelsplit_policy.hints import Absence
from modelsplit_policy.verdict import (
    Facts,
    Keyless,
    Recovered,
    RoleFacts,
    Silent,
    Unbegun,
    is_trouble,
    judge,
)
from modelsplit_policy.vocabulary import Role

PLANNER = RoleFacts(Role.PLANNER, max_queue=64, models=("a", "b"))
HEAVY = RoleFacts(Role.HEAVY, max_queue=32, models=("c",))
CHAT = RoleFacts(Role.CHAT, max_queue=64)
WELL = Facts(
    upstream="http://ollama:11434", roles=(PLANNER, HEAVY, CHAT), state_directory="/var/lib/ms"
)
LATE = Trouble(Signal.LAG, Level.DEGRADED, "event-loop lag p99 300 ms (DEGRADED from 250 ms)")
LONG = Trouble(Signal.QUEUE, Level.DEGRADED, "queue pressure 0.8 (DEGRADED from 0.75)")
AWAY = Trouble(Signal.UPSTREAM, Level.CRITICAL, "the upstream is down")
STOPPED = Trouble(Signal.MODEL_BREAKERS, Level.DEGRADED, "breakers open for 1 model")


def planner(**changes: object) -> Facts:
    """All is well but this of PLANNER."""
    return replace(WELL, roles=(replace(PLANNER, **changes), HEAVY, CHAT))  # type: ignore[arg-type]


def test_where_all_is_well_nothing_is_said() -> None:
    found = judge(WELL)
    assert (found.level, found.cause, found.step, found.notes) == (Level.OK, "", "", ())


BAD = {
    "draining": (
        replace(WELL, draining=True, active=2),
        Level.CRITICAL,
        "it drains: 2 requests being answered, new ones are refused",
        "modelsplit requests --outcome running",
    ),
    "Ollama is away": (
        replace(WELL, upstream_up=False, upstream_error="connection refused", troubles=(AWAY,)),
        Level.CRITICAL,
        "Ollama at http://ollama:11434 is not answering (connection refused)",
        "systemctl status ollama",
    ),
    "half is refused": (
        planner(calls=24, failed={"queue_timeout": 11, "queue_full": 1}, failed_now=12),
        Level.CRITICAL,
        "PLANNER: 12 of 24 calls failed in the last 5 min (queue_timeout 11, queue_full 1)",
        "modelsplit requests --role PLANNER --failed --since 5m",
    ),
    "some fail": (
        planner(calls=30, failed={"status": 3}, failed_now=1),
        Level.DEGRADED,
        "PLANNER: 3 of 30 calls failed in the last 5 min (status 3)",
        "modelsplit requests --role PLANNER --failed --since 5m",
    ),
    "a line is full": (
        planner(waiting=64),
        Level.DEGRADED,
        "PLANNER's line is full: 64 of 64 wait",
        "modelsplit requests --role PLANNER --outcome running",
    ),
    "a runner hangs": (
        replace(WELL, silent=(Silent("id-1", "CHAT", "m", 75.0),)),
        Level.DEGRADED,
        "a call of CHAT has had no answer from m for 75 s: it may hang",
        "modelsplit requests id-1",
    ),
    "the disk is full": (
        replace(WELL, state_error="database or disk is full"),
        Level.DEGRADED,
        "the state file: database or disk is full",
        "df -h /var/lib/ms",
    ),
    "budgets cannot be counted with others": (
        replace(WELL, shared_error="it is away: refused", shared_step="redis-cli -h r ping"),
        Level.DEGRADED,
        "calls that budgets count are refused: the shared Redis: it is away: refused",
        "redis-cli -h r ping",
    ),
    "another modelsplit asks our Ollama": (
        replace(WELL, rivals=("127.0.0.1:11434 is asked by another modelsplit too, b on c",)),
        Level.DEGRADED,
        "127.0.0.1:11434 is asked by another modelsplit too, b on c",
        "modelsplit config show",
    ),
    "our state directory was copied": (
        replace(WELL, copies=("b on c runs with a copy of this state directory",)),
        Level.DEGRADED,
        "b on c runs with a copy of this state directory",
        "modelsplit budget show",
    ),
    "the state was damaged": (
        replace(WELL, lost=("heavy-20b", "cloud"), set_aside="modelsplit.sqlite3.corrupt-1"),
        Level.DEGRADED,
        "the state file was damaged, so budgets are taken as used up: heavy-20b, cloud",
        'modelsplit budget reset --reason "the state file was damaged"',
    ),
    "the first model is missing": (
        planner(missing=frozenset({"a"})),
        Level.DEGRADED,
        "PLANNER: a is not installed, only its fallback answers",
        "ollama pull a",
    ),
    "a role's models are missing": (
        planner(missing=frozenset({"a", "b"})),
        Level.DEGRADED,
        "PLANNER cannot be served: neither a nor b is installed",
        "ollama pull a && ollama pull b",
    ),
    "a role's models are on a host that does not answer": (
        planner(unreached={"a": ("big",), "b": ("big",)}),
        Level.DEGRADED,
        "PLANNER cannot be served: a, b are on no host that answers (big does not)",
        "modelsplit host list",
    ),
    "one of them is installed nowhere": (
        planner(missing=frozenset({"a"}), unreached={"b": ("big", "far")}),
        Level.DEGRADED,
        "PLANNER cannot be served: b is on no host that answers (big, far do not)",
        "modelsplit host list",
    ),
    "the first model is on a host that does not answer": (
        planner(unreached={"a": ("big",)}),
        Level.DEGRADED,
        "PLANNER: a is on no host that answers (big does not), only its fallback answers",
        "modelsplit host list",
    ),
    "a model is stopped": (
        replace(WELL, troubles=(STOPPED,), stopped=("LOCAL/a (5 failures in a row)",)),
        Level.DEGRADED,
        "calls are stopped: LOCAL/a (5 failures in a row)",
        "modelsplit requests --failed --since 5m",
    ),
    "the loop is late": (
        replace(WELL, troubles=(LATE,)),
        Level.DEGRADED,
        LATE.cause,
        "top",
    ),
    "a moment ago it was": (
        replace(WELL, held=LATE),
        Level.DEGRADED,
        f"better only since a moment ago: {LATE.cause}",
        "top",
    ),
    "the lines are long": (
        replace(WELL, troubles=(LONG,)),
        Level.DEGRADED,
        LONG.cause,
        "modelsplit requests --outcome running",
    ),
    "a task of ours failed": (
        replace(WELL, tasks_error="background tasks failed: probe, 1 times"),
        Level.DEGRADED,
        "background tasks failed: probe, 1 times",
        "journalctl -u modelsplit -n 50",
    ),
}


@pytest.mark.parametrize(("facts", "level", "cause", "step"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_said_with_what_to_do_next(
    facts: Facts, level: Level, cause: str, step: str
) -> None:
    found = judge(facts)
    assert (found.level, found.cause, found.step) == (level, cause, step)
    assert len(found.causes) == 1


def test_nobody_is_told_to_install_a_model_while_ollama_does_not_answer() -> None:
    """It could not be done."""
    for missing in ({"a"}, {"b"}, {"a", "b"}):
        found = judge(replace(AWAY_FACTS, roles=planner(missing=frozenset(missing)).roles))
        steps = [*(cause.step for cause in found.causes), *(note.step for note in found.notes)]
        assert not [step for step in steps if "ollama pull" in step]
        assert "installed" not in " ".join(cause.text for cause in found.causes)


def test_what_failed_for_want_of_a_model_is_over_once_it_is_there() -> None:
    failed = {"calls": 4, "failed": {"not_installed": 4}, "failed_now": 4}
    found = judge(planner(**failed))
    assert found.level is Level.OK
    [note] = found.notes
    assert note.text.endswith("(not_installed 4); its models are installed now")
    for facts in (
        planner(**failed, missing=frozenset({"b"})),
        planner(calls=4, failed={"not_installed": 2, "status": 2}, failed_now=4),
    ):
        assert judge(facts).level is not Level.OK


def test_where_no_role_has_a_model_nobody_is_served() -> None:
    failed = {"calls": 4, "failed": {"not_installed": 4}, "failed_now": 4}
    planner = replace(PLANNER, missing=frozenset("ab"), **failed)  # type: ignore[arg-type]
    found = judge(replace(WELL, roles=(planner, replace(HEAVY, missing=frozenset("c")), CHAT)))
    assert [(cause.level, cause.text, cause.step) for cause in found.causes] == [
        (
            Level.CRITICAL,
            "no role can be served: none of their models is installed (a, b, c)",
            "ollama pull a && ollama pull c",
        )
    ]
    # Of one role alone, its own.
    alone = judge(replace(WELL, roles=(planner, CHAT)))
    assert [cause.text for cause in alone.causes] == [
        "PLANNER cannot be served: neither a nor b is installed"
    ]


def test_the_worst_is_told_first_and_all_are_told() -> None:
    facts = replace(WELL, upstream_up=False, upstream_error="no route", lost=("cloud",))
    found = judge(replace(facts, troubles=(LATE,)))
    assert [cause.level for cause in found.causes] == [
        *(Level.CRITICAL, Level.DEGRADED, Level.DEGRADED),
    ]
    assert found.step == "systemctl status ollama"


def test_one_that_hangs_is_to_be_restarted() -> None:
    facts = replace(WELL, upstream_up=False, upstream_error="no answer within 5 s")
    assert judge(replace(facts, absence=Absence.HANGS)).step == "systemctl restart ollama"


def test_where_something_else_answers_nobody_is_told_to_start_ollama_there() -> None:
    facts = replace(WELL, upstream_up=False, upstream_error="it answered 404")
    found = judge(replace(facts, absence=Absence.OTHER))
    assert found.cause == (
        "what listens at http://ollama:11434 does not answer as Ollama does (it answered 404)"
    )
    assert found.step == "curl -m 5 http://127.0.0.1:11434/api/version"


def test_that_trouble_is_over_is_told_with_what_it_cost() -> None:
    over = Recovered(20.0, 12.0, "Ollama is not answering", 3)
    facts = replace(WELL, recovered=over, returned=Recovered(20.0, 12.0, failed=3))
    found = judge(facts)
    assert found.level is Level.OK
    assert [note.text for note in found.notes] == [
        (
            "all is well since 20 s ago; before, for 12 s: Ollama is not answering; "
            "3 calls failed meanwhile"
        )
    ]
    later = replace(facts, recovered=over._replace(ago_s=300.0), returned=Recovered(300.0, 12.0))
    assert judge(later).notes == ()


def test_calls_are_those_since_ollama_is_back() -> None:
    """What failed before is told of the outage."""
    some = planner(calls=5, failed={"status": 3}, failed_now=3)
    found = judge(replace(some, returned=Recovered(20.0, 12.0, failed=9)))
    assert found.cause == "PLANNER: 3 of 5 calls failed since Ollama is back (status 3)"
    assert [note.text for note in found.notes] == [
        (
            "Ollama answers again since 20 s ago; before, for 12 s, it did not; "
            "9 calls failed meanwhile"
        )
    ]


def test_what_a_cloud_failed_of_is_neither_ollamas_doing_nor_over_with_its_outage() -> None:
    failed = {"connect_refused": 3}
    role = RoleFacts(Role.CLOUD, 5, failed, 3, past_ollama=True)
    text = "CLOUD: 3 of 5 calls failed in the last 5 min (connect_refused 3)"
    back = judge(replace(WELL, roles=(role,), returned=Recovered(20.0, 12.0)))
    assert [cause.text for cause in back.causes] == [text]
    away = judge(replace(AWAY_FACTS, roles=(role,)))
    assert [cause.text for cause in away.causes][1:] == [text]


def test_what_another_program_on_ollamas_port_answers_is_no_cause_of_its_own() -> None:
    some = planner(calls=9, failed={"no_answer": 3, "status": 2}, failed_now=5)
    other = replace(some, upstream_up=False, upstream_error="x", absence=Absence.OTHER)
    assert len(judge(other).causes) == 1
    assert len(judge(replace(other, absence=Absence.HANGS)).causes) == 2


def test_a_question_left_open_is_told_before_it_is_given_up() -> None:
    asked = replace(
        WELL, unanswered=(("Ollama", 4.2),), recovered=Recovered(8.0, 12.0, "it was away")
    )
    found = judge(asked)
    assert (found.level, found.step) == (Level.OK, "systemctl status ollama")
    # That all is well since then is not known any more.
    assert [note.text for note in found.notes] == ["Ollama has not answered the probe for 4 s"]
    held_up = judge(replace(asked, unbegun=Unbegun(2, 3.9)))
    assert held_up.notes[0].text == (
        "Ollama has not answered the probe for 4 s; "
        "2 calls have had no byte of an answer, the oldest for 4 s"
    )
    moment_ago = replace(WELL, unanswered=(("Ollama", 1.9),), unbegun=Unbegun(1, 1.9))
    assert judge(moment_ago).notes == ()


AWAY_FACTS = replace(
    WELL, upstream_up=False, upstream_error="no answer within 5 s", absence=Absence.HANGS
)


def test_of_an_outage_there_is_one_cause_and_what_comes_of_it_is_a_note() -> None:
    late = Trouble(Signal.TIMEOUTS, Level.CRITICAL, "15 timeouts in 60 s")
    found = judge(
        replace(
            AWAY_FACTS,
            away_s=14.0,
            away_failed=3,
            unbegun=Unbegun(1, 12.0),
            troubles=(AWAY, late),
            held=late,
            silent=(Silent("id-1", "CHAT", "m", 75.0),),
            roles=planner(calls=9, failed={"role_timeout": 3}, failed_now=3).roles,
            shed="HEAVY, CHAT calls are refused: 15 timeouts in 60 s",
        )
    )
    assert [cause.text for cause in found.causes] == [
        "Ollama at http://ollama:11434 is not answering (no answer within 5 s)"
    ]
    away, shed = (note.text for note in found.notes)
    assert away == (
        "Ollama has not answered for 14 s; 3 calls failed since; "
        "1 call has had no byte of an answer, the oldest for 12 s"
    )
    assert shed == "so that others are served, HEAVY, CHAT calls are refused: 15 timeouts in 60 s"
    assert found.step == "systemctl restart ollama"


def test_beside_an_outage_what_it_does_not_explain_is_told() -> None:
    found = judge(
        replace(AWAY_FACTS, roles=planner(calls=9, failed={"schema": 3}, failed_now=3).roles)
    )
    assert [cause.level for cause in found.causes] == [Level.CRITICAL, Level.DEGRADED]
    assert found.causes[1].text.endswith("calls failed in the last 5 min (schema 3)")


def test_that_ollama_is_back_is_told_beside_what_is_still_wrong() -> None:
    facts = replace(WELL, returned=Recovered(130.0, 200.0), tasks_error="a task has ended")
    found = judge(facts)
    assert found.level is Level.DEGRADED
    assert [note.text for note in found.notes] == [
        "Ollama answers again since 2 min ago; before, for 3 min, it did not"
    ]
    assert [note.text for note in judge(replace(facts, upstream_up=False)).notes] == [
        "Ollama has not answered for 0 s"
    ]
    assert judge(replace(WELL, recovered=Recovered(1.0, 1.0, "x"))).notes[0].text == (
        "all is well since 1 s ago; before, for 1 s: x"
    )


def test_an_ollama_that_answers_again_is_not_called_down_beside_its_version() -> None:
    assert judge(replace(WELL, held=AWAY)).level is Level.OK
    opened = Trouble(Signal.PROVIDER_BREAKER, Level.CRITICAL, "the provider's breaker is open")
    assert judge(replace(WELL, held=opened)).level is Level.OK
    # But one that stands open now is told.
    assert judge(replace(WELL, troubles=(opened,))).cause == opened.cause
    why = replace(WELL, troubles=(opened,), all_stopped="5 failures in a row")
    assert judge(why).cause == "calls to Ollama are stopped: 5 failures in a row"


def test_what_the_health_guard_saw_before_ollama_answered_is_not_told() -> None:
    assert judge(replace(WELL, troubles=(AWAY,))) == judge(WELL)


NOTES = {
    "what is over": (
        planner(calls=24, failed={"queue_full": 12}),
        "PLANNER: 12 of 24 calls failed in the last 5 min (queue_full 12), none in the last minute",
        "modelsplit requests --role PLANNER --failed --since 5m",
    ),
    "a missing fallback": (
        planner(missing=frozenset({"b"})),
        "PLANNER has no fallback: b is not installed",
        "ollama pull b",
    ),
    "a fallback on a host that does not answer": (
        planner(unreached={"b": ("big",)}),
        "PLANNER has no fallback: b is on no host that answers (big does not)",
        "modelsplit host list",
    ),
    "a damaged file, its budgets open again": (
        replace(WELL, set_aside="modelsplit.sqlite3.corrupt-1"),
        "the state file was damaged at the start: it is kept as modelsplit.sqlite3.corrupt-1",
        "",
    ),
    "lost records": (
        replace(WELL, records_lost=3),
        "3 records of calls are lost; the log says which and why",
        "",
    ),
}


@pytest.mark.parametrize(("facts", "text", "step"), NOTES.values(), ids=NOTES)
def test_what_harms_nobody_now_is_a_note(facts: Facts, text: str, step: str) -> None:
    found = judge(facts)
    assert (found.level, [note.text for note in found.notes]) == (Level.OK, [text])
    assert found.step == step


@pytest.mark.parametrize(
    "facts",
    [
        planner(calls=2, failed={"status": 2}, failed_now=2),
        planner(calls=1000, failed={"status": 9}, failed_now=9),
        planner(waiting=63),
        replace(WELL, upstream_up=None),
    ],
    ids=["two calls", "one in a hundred", "a long line", "not asked yet"],
)
def test_what_happens_every_day_is_no_trouble(facts: Facts) -> None:
    assert judge(facts).level is Level.OK


def test_a_command_says_whom_to_ask_where_it_would_ask_another() -> None:
    step = judge(replace(BAD["half is refused"][0], asked_at="127.0.0.1:9")).step
    assert step.endswith(" --since 5m --admin 127.0.0.1:9")
    assert judge(replace(BAD["Ollama is away"][0], asked_at="h:9")).step == (
        "systemctl status ollama"
    )


def test_of_many_reasons_the_most_frequent_are_told() -> None:
    failed = {"reset": 1, "status": 5, "stall": 2, "dns": 3}
    told = judge(planner(calls=11, failed=failed, failed_now=1)).cause
    assert told.endswith("(status 5, dns 3, stall 2, …)")


def test_what_clients_do_and_what_the_policy_wants_is_no_trouble() -> None:
    trouble = {
        (code, reason)
        for code, spec in ERRORS.items()
        for reason in spec.reasons
        if is_trouble(Role.PLANNER, code, reason)
    }
    assert {code for code, _ in trouble} == {
        ErrorCode.MODEL_NOT_FOUND,
        ErrorCode.BUDGET_EXHAUSTED,
        ErrorCode.OVERLOAD_THROTTLED,
        ErrorCode.UNREACHABLE_LOCAL,
        ErrorCode.UNREACHABLE_CLOUD,
        ErrorCode.UPSTREAM_LOCAL,
        ErrorCode.UPSTREAM_CLOUD,
        ErrorCode.STREAM_BROKEN_LOCAL,
        ErrorCode.STREAM_BROKEN_CLOUD,
        ErrorCode.TIMEOUT_LOCAL,
        ErrorCode.TIMEOUT_CLOUD,
        ErrorCode.SCHEMA_INVALID,
        ErrorCode.INTERNAL,
    }
    budget = {reason for code, reason in trouble if code is ErrorCode.BUDGET_EXHAUSTED}
    assert budget == {Reason.COUNTS_LOST, Reason.LEDGER_UNAVAILABLE}
    # A model that a client names and that is not there is the client's affair.
    assert not is_trouble(Role.CHAT, ErrorCode.MODEL_NOT_FOUND, Reason.NOT_INSTALLED)


def test_one_of_several_hosts_that_is_away_is_noted_and_no_trouble() -> None:
    found = judge(replace(WELL, hosts_away=("big does not answer (connection refused)",)))
    assert found.level is Level.OK
    [note] = found.notes
    assert note.text == "host big does not answer (connection refused); its calls go to the others"
    assert note.step == "modelsplit host list"


def test_where_no_host_takes_calls_that_is_the_trouble_and_no_other_is_named_for_them() -> None:
    away = ("big does not answer (refused)",)
    shut = ("small is drained", *away)
    found = judge(replace(WELL, hosts_away=away, hosts_shut=shut))
    assert found.level is Level.CRITICAL
    assert found.cause == ("no host takes calls: small is drained, big does not answer (refused)")
    assert found.step == "modelsplit host list"
    assert not found.notes


def test_a_cloud_without_a_key_is_trouble_once_something_may_leave() -> None:
    keyless = Keyless("anthropic has no key", "read -rs ANTHROPIC_API_KEY")
    closed = judge(replace(WELL, keyless=(keyless,)))
    assert (closed.level, closed.causes, closed.notes) == (Level.OK, (), ((*keyless,),))
    opened = judge(replace(WELL, keyless=(keyless,), is_approved=True))
    assert (opened.level, opened.cause, opened.step) == (Level.DEGRADED, *keyless)
    assert opened.notes == ()
