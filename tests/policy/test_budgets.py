"""Sliding windows: what fits, what does not, and that nothing ever gets past them."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from modelsplit_policy.budgets import (
    MOST_NANO,
    Budgets,
    Charge,
    Exhausted,
    Reservation,
    Standing,
    computed_nothing,
    dollars,
    nano,
)
from modelsplit_policy.config.model import BudgetPolicy
from modelsplit_policy.failures import Reason
from modelsplit_policy.vocabulary import Provider, Role

HOUR = 3600.0
HEAVY = Charge("gpt-oss:20b", Role.HEAVY, Provider.LOCAL)
CLOUD = Charge("claude-3-opus", Role.CLOUD, Provider.CLOUD, nano(1.5))


def budget(name: str = "heavy", **said: Any) -> BudgetPolicy:
    values: dict[str, Any] = {"name": name, "window": "1h", **said}
    return BudgetPolicy.model_validate(values)


def heavy(calls: int = 10, **said: Any) -> Budgets:
    return Budgets([budget(models=("gpt-oss:20b",), calls=calls, **said)])


def reserved(budgets: Budgets, now: float, charge: Charge = HEAVY) -> Reservation:
    verdict = budgets.reserve(now, charge)
    assert isinstance(verdict, Reservation), verdict
    return verdict


def refused(budgets: Budgets, now: float, charge: Charge = HEAVY) -> Exhausted:
    verdict = budgets.reserve(now, charge)
    assert isinstance(verdict, Exhausted), verdict
    assert budgets.check(now, charge) == verdict
    return verdict


def only(budgets: Budgets, now: float) -> Standing:
    (standing,) = budgets.standing(now)
    return standing


def test_what_is_reserved_is_told_apart_from_what_was_spent() -> None:
    budgets = Budgets([budget("cloud", provider="CLOUD", usd=5.0)])
    first, second = reserved(budgets, 0.0, CLOUD), reserved(budgets, 1.0, CLOUD)
    assert (only(budgets, 1.0).nano_usd, only(budgets, 1.0).nano_usd_reserved) == (
        *(nano(3.0), nano(3.0)),
    )
    budgets.settle(first, nano(0.25))
    assert (only(budgets, 2.0).nano_usd, only(budgets, 2.0).nano_usd_reserved) == (
        *(nano(1.75), nano(1.5)),
    )
    budgets.give_back(second)
    assert (only(budgets, 3.0).nano_usd, only(budgets, 3.0).nano_usd_reserved) == (nano(0.25), 0)
    # What another process had reserved is taken as spent: nobody will settle it.
    again = Budgets([budget("cloud", provider="CLOUD", usd=5.0)])
    again.restore(Reservation(1, 0.0, CLOUD))
    assert (only(again, 1.0).nano_usd, only(again, 1.0).nano_usd_reserved) == (nano(1.5), 0)


def test_ten_an_hour_are_ten_and_the_eleventh_waits_for_the_first_to_leave() -> None:
    budgets = heavy()
    for minute in range(10):
        reserved(budgets, minute * 60.0)
    exhausted = refused(budgets, 600.0)
    assert exhausted.reason is Reason.CALLS
    assert exhausted.opens_in_s == 3000.0
    assert (exhausted.standing.calls, exhausted.standing.max_calls) == (10, 10)
    refused(budgets, 3599.999)
    reserved(budgets, 3600.0)
    assert refused(budgets, 3600.0).opens_in_s == 60.0


def test_a_call_counts_from_when_it_was_reserved_however_long_it_takes() -> None:
    budgets = heavy(1)
    first = reserved(budgets, 0.0)
    reserved(budgets, HOUR)
    budgets.settle(first, 0)  # its own hour is over: nothing left to settle
    budgets.give_back(first)
    assert only(budgets, HOUR).calls == 1


def test_what_is_given_back_was_never_there() -> None:
    budgets = heavy(1)
    first = reserved(budgets, 0.0)
    refused(budgets, 1.0)
    budgets.give_back(first)
    budgets.give_back(first)
    reserved(budgets, 2.0)


def test_a_call_must_match_every_selector_that_is_named() -> None:
    budgets = Budgets([budget(models=("qwen3:8b",), role="HEAVY", calls=1)])
    assert not budgets.selected("qwen3:8b", Role.CHAT, Provider.LOCAL)
    assert not budgets.selected("qwen3:4b", Role.HEAVY, Provider.LOCAL)
    assert budgets.selected("qwen3:8b", Role.HEAVY, Provider.LOCAL)
    for _ in range(3):
        reserved(budgets, 0.0, Charge("qwen3:8b", Role.CHAT, Provider.LOCAL))
    assert only(budgets, 0.0).calls == 0


@pytest.mark.parametrize("name", ["Llama3", "llama3:latest", "registry.ollama.ai/library/llama3"])
def test_every_spelling_in_the_policy_is_that_model(name: str) -> None:
    budgets = Budgets([budget(models=(name,), calls=0)])
    refused(budgets, 0.0, Charge("llama3", Role.CHAT, Provider.LOCAL))


def test_several_budgets_count_all_or_nothing() -> None:
    budgets = Budgets(
        [
            budget("model", models=("gpt-oss:20b",), calls=5),
            budget("role", role="HEAVY", calls=1, window="30m"),
        ]
    )
    reserved(budgets, 0.0)
    assert refused(budgets, 1.0).standing.name == "role"
    assert [one.calls for one in budgets.standing(1.0)] == [1, 1]
    reserved(budgets, 1800.0)
    assert [one.calls for one in budgets.standing(1800.0)] == [2, 1]


def test_of_several_without_room_the_one_that_opens_last_is_named() -> None:
    budgets = Budgets(
        [budget("short", role="HEAVY", calls=1), budget("long", role="HEAVY", calls=1, window="1d")]
    )
    reserved(budgets, 0.0)
    exhausted = refused(budgets, 100.0)
    assert (exhausted.standing.name, exhausted.opens_in_s) == ("long", 86_300.0)


def test_no_calls_at_all_is_never() -> None:
    assert refused(heavy(0), 0.0).opens_in_s is None


def test_money_is_reserved_at_the_most_and_settled_with_the_truth() -> None:
    budgets = Budgets([budget("cloud", provider="CLOUD", usd=4.0, window="1d")])
    first = reserved(budgets, 0.0, CLOUD)
    reserved(budgets, 10.0, CLOUD)
    exhausted = refused(budgets, 20.0, CLOUD)
    assert exhausted.reason is Reason.USD
    assert exhausted.opens_in_s == 86_400.0 - 20.0
    budgets.settle(first, nano(0.25))
    assert dollars(only(budgets, 20.0).nano_usd) == 1.75
    reserved(budgets, 20.0, CLOUD)


def test_the_wait_for_money_is_until_enough_has_left() -> None:
    budgets = Budgets([budget("cloud", provider="CLOUD", usd=4.0)])
    for second, usd in enumerate((0.5, 0.5, 3.0)):
        reserved(budgets, float(second), Charge("m", Role.CLOUD, Provider.CLOUD, nano(usd)))
    exhausted = refused(budgets, 10.0, Charge("m", Role.CLOUD, Provider.CLOUD, nano(1.0)))
    assert exhausted.opens_in_s == HOUR + 1.0 - 10.0


def test_a_call_that_may_cost_more_than_the_whole_budget_never_fits() -> None:
    budgets = Budgets([budget("cloud", provider="CLOUD", usd=1.0)])
    assert refused(budgets, 0.0, CLOUD).opens_in_s is None


def test_a_budget_of_money_does_not_count_what_is_free() -> None:
    budgets = Budgets([budget("money", role="HEAVY", usd=0.0)])
    assert not budgets.enforced(HEAVY)
    reserved(budgets, 0.0)
    assert only(budgets, 0.0).calls == 0


def test_a_call_that_cost_more_than_was_reserved_is_counted_as_it_was() -> None:
    budgets = Budgets([budget("cloud", provider="CLOUD", usd=2.0)])
    first = reserved(budgets, 0.0, CLOUD)
    budgets.settle(first, nano(3.0))
    assert only(budgets, 0.0).nano_usd_left == 0
    free = Charge("m", Role.CLOUD, Provider.CLOUD, 0)
    reserved(budgets, 0.0, free)


def test_a_shadow_budget_counts_and_never_refuses() -> None:
    budgets = heavy(1, shadow=True)
    assert not budgets.enforced(HEAVY)
    assert reserved(budgets, 0.0).over == ()
    assert reserved(budgets, 1.0).over == ("heavy",)
    assert only(budgets, 1.0).calls == 2
    assert only(budgets, 1.0).calls_left == 0


def test_a_shadow_budget_does_not_count_what_another_refused() -> None:
    budgets = Budgets(
        [budget("real", role="HEAVY", calls=1), budget("trial", role="HEAVY", calls=9, shadow=True)]
    )
    reserved(budgets, 0.0)
    refused(budgets, 0.0)
    assert [one.calls for one in budgets.standing(0.0)] == [1, 1]


def test_time_that_goes_back_opens_nothing_and_blocks_nothing() -> None:
    budgets = heavy(2)
    reserved(budgets, 10_000.0)
    assert reserved(budgets, 1.0).at == 10_000.0
    refused(budgets, 2.0)
    refused(budgets, 13_599.0)
    reserved(budgets, 13_600.0)


def test_an_earlier_process_is_counted() -> None:
    budgets = heavy(2)
    budgets.restore(Reservation(41, 100.0, HEAVY))
    second = reserved(budgets, 200.0)
    assert second.id == 42
    assert refused(budgets, 200.0).opens_in_s == 3500.0


def test_numbers_are_not_given_twice() -> None:
    budgets = heavy()
    budgets.begin_after(7)
    assert reserved(budgets, 0.0).id == 8


def test_lost_counts_are_taken_as_used_up_for_one_window() -> None:
    budgets = heavy(10)
    budgets.presume_used(1000.0)
    exhausted = refused(budgets, 1600.0)
    assert (exhausted.reason, exhausted.opens_in_s) == (Reason.COUNTS_LOST, 3000.0)
    assert exhausted.standing.presumed
    assert exhausted.standing.calls_left == 0
    assert only(budgets, 1600.0).frees_in_s == 3000.0
    reserved(budgets, 4600.0)
    assert not only(budgets, 4600.0).presumed


def test_lost_counts_that_an_operator_knows_of_are_not() -> None:
    budgets = Budgets([budget("money", provider="CLOUD", usd=2.0)])
    budgets.presume_used(1000.0)
    assert refused(budgets, 1000.0, CLOUD).reason is Reason.COUNTS_LOST
    budgets.presume_used(None)
    reserved(budgets, 1000.0, CLOUD)


def test_the_longest_window_is_how_far_back_to_read() -> None:
    assert Budgets([]).longest_s == 0
    budgets = Budgets([budget(calls=1), budget("b", calls=1, window="2d"), budget("c", calls=1)])
    assert budgets.longest_s == 172_800


def test_standing_of_what_concerns_a_charge() -> None:
    budgets = Budgets([budget("a", role="CLOUD", calls=1), budget("b", role="HEAVY", calls=3)])
    (standing,) = budgets.standing(0.0, HEAVY)
    assert (standing.name, standing.calls_left, standing.frees_in_s) == ("b", 3, None)
    assert standing.nano_usd_left is None


@given(st.lists(st.floats(0, 1e4), min_size=1), st.integers(0, 6))
def test_never_more_than_the_calls_in_any_window(times: list[float], calls: int) -> None:
    budgets, taken = heavy(calls), []
    for now in times:  # in any order: the clock may lie
        verdict = budgets.reserve(now, HEAVY)
        if isinstance(verdict, Reservation):
            taken.append(verdict.at)
    assert taken == sorted(taken)
    for at in taken:
        assert sum(at <= other < at + HOUR for other in taken) <= calls


class AnyInterleaving(RuleBasedStateMachine):
    """Two budgets of calls, one of money, one shadow: against a list that forgets nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.policies = [
            budget("calls", role="HEAVY", calls=3),
            budget("both", models=("a",), calls=4, usd=5.0, window="30m"),
            budget("money", provider="LOCAL", usd=6.0),
            budget("shadow", role="HEAVY", calls=1, shadow=True),
        ]
        self.budgets = Budgets(self.policies)
        self.now = 0.0
        self.open: list[Reservation] = []
        self.counted: dict[int, tuple[float, Charge, int]] = {}

    def matches(self, policy: BudgetPolicy, charge: Charge) -> bool:
        return (
            (policy.models is None or charge.model in policy.models)
            and (policy.role is None or policy.role is charge.role)
            and (policy.calls is not None or charge.nano_usd > 0)
        )

    def used(self, policy: BudgetPolicy) -> tuple[int, int]:
        within = [
            cost
            for at, charge, cost in self.counted.values()
            if self.matches(policy, charge) and at + policy.window_s > self.now
        ]
        return len(within), sum(within)

    @rule(
        model=st.sampled_from("ab"),
        role=st.sampled_from([Role.HEAVY, Role.CHAT]),
        usd=st.sampled_from([0.0, 0.5, 1.0, 2.5]),
    )
    def reserve(self, model: str, role: Role, usd: float) -> None:
        charge = Charge(model, role, Provider.LOCAL, nano(usd))
        fits = True
        for policy in self.policies:
            if policy.shadow or not self.matches(policy, charge):
                continue
            calls, money = self.used(policy)
            fits &= policy.calls is None or calls < policy.calls
            fits &= policy.usd is None or usd == 0 or money + nano(usd) <= nano(policy.usd)
        verdict = self.budgets.reserve(self.now, charge)
        assert isinstance(verdict, Reservation) is fits
        if isinstance(verdict, Reservation):
            self.open.append(verdict)
            self.counted[verdict.id] = (self.now, charge, charge.nano_usd)
        elif verdict.opens_in_s is not None:
            assert verdict.opens_in_s > 0

    @rule(seconds=st.sampled_from([0.0, 1.0, 299.5, 1800.0, 3600.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.open)
    @rule(data=st.data(), share=st.sampled_from([0.0, 0.5, 1.0]))
    def settle(self, data: st.DataObject, share: float) -> None:
        one = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        cost = int(one.charge.nano_usd * share)
        self.budgets.settle(one, cost)
        self.counted[one.id] = (one.at, one.charge, cost)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        one = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        self.budgets.give_back(one)
        del self.counted[one.id]

    @rule()
    def restart(self) -> None:
        """A new process reads what was written; what was in flight stays counted."""
        self.budgets, self.open = Budgets(self.policies), []
        for key, (at, charge, cost) in self.counted.items():
            stored = Charge(charge.model, charge.role, charge.provider, cost)
            self.budgets.restore(Reservation(key, at, stored))
            self.counted[key] = (at, stored, cost)

    @invariant()
    def everything_counted_is_told_and_nothing_else(self) -> None:
        for policy, standing in zip(self.policies, self.budgets.standing(self.now), strict=True):
            assert (standing.calls, standing.nano_usd) == self.used(policy)
            if not policy.shadow:
                assert policy.calls is None or standing.calls <= policy.calls
                assert policy.usd is None or standing.nano_usd <= nano(policy.usd)


TestAnyInterleaving = AnyInterleaving.TestCase


@given(st.one_of(st.floats(min_value=0), st.just(float("nan"))))
def test_money_is_whole_billionths_and_never_more_than_can_be_counted(usd: float) -> None:
    charged = nano(usd)
    assert 0 <= charged <= MOST_NANO
    if usd < 9_000_000:
        assert charged == round(usd * 1e9)
    if not usd < 9_007_200:
        assert charged == MOST_NANO


@pytest.mark.parametrize(
    ("status", "provider", "nothing"),
    [
        (404, Provider.CLOUD, True),
        (429, Provider.CLOUD, True),
        (501, Provider.LOCAL, True),
        # Ollama's line was full; why a cloud is unavailable nobody knows.
        (503, Provider.LOCAL, True),
        (503, Provider.CLOUD, False),
        # These end computations too.
        (408, Provider.LOCAL, False),
        (499, Provider.LOCAL, False),
        (500, Provider.LOCAL, False),
        (200, Provider.LOCAL, False),
        (None, Provider.LOCAL, False),
    ],
)
def test_which_answers_prove_that_nothing_was_computed(
    status: int | None, provider: Provider, *, nothing: bool
) -> None:
    assert computed_nothing(status, provider) is nothing


def test_one_text_of_many_that_is_too_long_proves_nothing() -> None:
    assert not computed_nothing(400, Provider.LOCAL, embeds=True)
    assert computed_nothing(404, Provider.LOCAL, embeds=True)
