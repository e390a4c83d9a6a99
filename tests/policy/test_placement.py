"""Which of several hosts a call goes to."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.admission import Admission, from_policy
from modelsplit_policy.config.parser import parse
from modelsplit_policy.failures import ErrorCode, Reason
from modelsplit_policy.host_rules import EVERYTHING, HostRules, patterns
from modelsplit_policy.hosts import HostSeats
from modelsplit_policy.parallelism import Parallelism
from modelsplit_policy.placement import Placement, _order, evicts, suits_better
from modelsplit_policy.pools import PoolLimits
from modelsplit_policy.tickets import Hold, Place, Placed, Ticket
from modelsplit_policy.vocabulary import DEFAULT_HOST, Host, Role
from support.policies import document

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

A, B, C = Host("a"), Host("b"), Host("c")
GIB = 2**30


def seats(host: Host, n: int = 2, useful: int | None = None, **rules: Any) -> HostSeats:
    learned = Parallelism(cap=n, host=useful or n, models=dict.fromkeys("mnk", n))
    return HostSeats(n, {}, learned, host, HostRules(**rules))


def fleet(*hosts: HostSeats, **limits: PoolLimits) -> Admission:
    pools = dict.fromkeys(Role, PoolLimits(seats=None, max_queue=9))
    pools |= {Role(role): limit for role, limit in limits.items()}
    return Admission(pools, hosts, forecasts=False)


def choice(admission: Admission) -> Placement:
    assert admission.placement is not None
    return admission.placement


def bars(seconds: dict[Host, float]) -> Callable[[Host, str, float], float]:
    """Hosts that are barred until a moment."""

    def bar(host: Host, model: str, now: float) -> float:
        del model
        return seconds.get(host, 0.0) - now

    return bar


def ask(
    admission: Admission, model: str = "m", role: Role = Role.CHAT, now: float = 0.0, **more: Any
) -> Ticket:
    ticket = Ticket(role, model, now, **more)
    admission.ask(ticket, now)
    return ticket


def test_one_host_that_takes_everything_leaves_nothing_to_choose() -> None:
    assert fleet(HostSeats(1, {}, Parallelism(cap=1, host=1, models={}))).placement is None
    assert from_policy(parse(document())).placement is None


# Which hosts may run a call.


def test_a_call_goes_only_where_its_role_and_model_may() -> None:
    admission = fleet(seats(A, models=patterns(["m"])), seats(B, roles=frozenset({Role.HEAVY})))
    assert ask(admission, "m").host == A
    assert ask(admission, "n", Role.HEAVY).host == B
    nowhere = Ticket(Role.CHAT, "n", 0.0)
    refusal = admission.ask(nowhere, 0.0)
    assert refusal is not None
    assert (refusal.code, refusal.reason) == (ErrorCode.MODEL_NOT_FOUND, Reason.NOT_INSTALLED)
    assert refusal.message == "no host takes n for role CHAT; see `hosts` in the policy"
    assert nowhere.place is Place.GONE


def test_a_host_without_the_model_is_left_out_while_another_may_have_it() -> None:
    near, far = seats(A), seats(B)
    admission = fleet(near, far)
    near.installed, far.installed = frozenset({"n"}), frozenset({"m"})
    choice(admission).changed()
    assert [ask(admission, "m").host, ask(admission, "m").host] == [B, B]
    assert ask(admission, "m").place is Place.WAITING
    # Nobody has it: Ollama says so itself.
    assert ask(admission, "k").host == A


def test_a_host_that_is_away_is_not_waited_for_where_another_takes_the_call() -> None:
    admission = fleet(seats(A), seats(B, models=patterns(["m"])))
    admission.away(A, is_away=True)
    assert ask(admission, "m").host == B
    only_there = ask(admission, "n")
    assert admission.why(only_there) is Hold.AWAY
    # Who waits for a host that is away stands in nobody's way.
    assert ask(admission, "m").host == B
    admission.away(A, is_away=False)
    assert admission.fill(1.0) == [only_there]


def test_a_drained_host_takes_nobody_new() -> None:
    near, far = seats(A), seats(B, models=patterns(["m"]))
    admission = fleet(near, far)
    near.drained = True
    assert ask(admission, "m").host == B
    refusal = admission.ask(Ticket(Role.CHAT, "n", 0.0), 0.0)
    assert refusal is not None
    assert (refusal.reason, refusal.retry_after_s) == (Reason.DRAINING, 10)
    assert refusal.message == (
        "every host that may run n is drained; see `modelsplit host list`, then "
        "`modelsplit host undrain NAME`"
    )
    assert admission.placement is not None
    admission.placement.asked_at = "127.0.0.1:65535"
    refusal = admission.ask(Ticket(Role.CHAT, "n" * 200, 0.0), 0.0)
    assert refusal is not None
    assert refusal.message.endswith(
        "; see `modelsplit host list --admin 127.0.0.1:65535`, then `modelsplit host undrain NAME "
        "--admin 127.0.0.1:65535`"
    )
    assert len(refusal.message) <= 200


def test_who_waits_for_a_host_that_is_drained_then_is_told_so() -> None:
    near = seats(A, 1)
    admission = fleet(near, seats(B, models=patterns(["n"])))
    ask(admission, "m")
    waiting = ask(admission, "m")
    near.drained = True
    assert admission.why(waiting) is Hold.DRAINED
    refusal = admission.refusal(Reason.QUEUE_TIMEOUT, waiting, 5.0)
    assert "every host that may run m is drained" in refusal.message


def test_a_barred_host_is_passed_over_unless_all_are() -> None:
    admission = fleet(seats(A), seats(B))
    barred: dict[Host, float] = {}
    choice(admission).bar = bars(barred)
    assert ask(admission).host == A
    barred[A] = 2.0
    assert [ask(admission).host, ask(admission).host] == [B, B]
    # B is full: the call waits for it, and is seated at A as soon as that may be asked.
    waiting = ask(admission)
    assert waiting.place is Place.WAITING
    assert admission.look_at == 2.0
    assert admission.fill(2.0) == [waiting]
    assert waiting.host == A


def test_where_all_are_barred_they_are_asked_all_the_same() -> None:
    admission = fleet(seats(A), seats(B))
    choice(admission).bar = bars({A: math.inf, B: math.inf})
    assert ask(admission).host == A


def test_a_call_that_failed_at_a_host_goes_elsewhere_if_it_can() -> None:
    admission = fleet(seats(A), seats(B))
    assert ask(admission, avoid=A).host == B
    assert ask(fleet(seats(A), seats(B, models=patterns(["n"]))), avoid=A).host == A


# Which is the best of them.


def test_the_lower_tier_is_taken_while_it_has_a_useful_seat() -> None:
    admission = fleet(seats(A, tier=2), seats(B, useful=1, tier=1))
    admission.note_loaded({"m": True}, A)
    assert [ask(admission).host, ask(admission).host] == [B, A]


def test_weights_share_out_what_several_could_take() -> None:
    admission = fleet(seats(A, 9, weight=1.0), seats(B, 9, weight=2.0))
    hosts = [ask(admission).host for _ in range(6)]
    assert (hosts.count(A), hosts.count(B)) == (2, 4)


@pytest.mark.parametrize(
    ("memory", "sizes", "pushes"),
    [
        (None, {"m": 4 * GIB, "n": 4 * GIB}, True),
        (8 * GIB, {"m": 4 * GIB}, True),
        (8 * GIB, {"m": 4 * GIB, "n": 4 * GIB}, False),
        (8 * GIB, {"m": 4 * GIB, "n": 5 * GIB}, True),
    ],
)
def test_a_model_pushes_another_out_unless_both_are_known_to_fit(
    memory: int | None, sizes: dict[str, int], pushes: bool
) -> None:
    host = seats(A, memory=memory)
    host.sizes = sizes
    assert not evicts(host, "m")
    host.take("n", 0.0)
    assert evicts(host, "m") is pushes
    assert not evicts(host, "n")


def test_a_model_is_loaded_where_that_pushes_out_no_busy_one() -> None:
    admission = fleet(seats(A, tier=1), seats(B, tier=2))
    admission.note_loaded({"m": False, "n": True}, A)
    admission.note_loaded({"m": False, "n": False}, B)
    assert ask(admission, "n").host == A
    assert ask(admission, "m").host == B


def test_a_call_waits_for_a_host_with_its_model_rather_than_push_out_a_longer_one() -> None:
    near, far = seats(A, useful=1), seats(B)
    admission = fleet(near, far)
    for model in "mn":
        for _ in range(2):
            admission.leave(ask(admission, model), 4.0 if model == "m" else 9.0)
    admission.note_loaded({"m": True, "n": False}, A)
    admission.note_loaded({"m": False, "n": True}, B)
    first, other = ask(admission, "m", now=10.0), ask(admission, "n", now=10.0)
    assert (first.host, other.host) == (A, B)
    waiting = ask(admission, "m", now=11.0)
    assert waiting.place is Place.WAITING
    admission.leave(first, 14.0)
    assert admission.fill(14.0) == [waiting]
    assert waiting.host == A


def test_the_order_of_two_hosts() -> None:
    near, far = seats(A), seats(B)
    assert not suits_better(near, far, "m")
    near.loaded = {"m": True}
    assert suits_better(near, far, "m")
    assert not suits_better(far, near, "m")


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        ({}, {"tier": 2}, Placed.TIER),
        ({}, {"weight": 0.5}, Placed.FEWEST),
        ({}, {}, Placed.FIRST),
        ({}, {"models": patterns(["n"])}, Placed.ONLY),
    ],
)
def test_what_decided_for_a_host_is_told(
    first: dict[str, Any], second: dict[str, Any], why: Placed
) -> None:
    ticket = ask(fleet(seats(A, **first), seats(B, **second)))
    assert (ticket.host, ticket.placed) == (A, why)


def test_that_a_model_is_loaded_or_has_room_or_a_prompt_was_read_is_told() -> None:
    admission = fleet(seats(A), seats(B))
    admission.note_loaded({"m": True}, B)
    assert ask(admission, marks=(1,)).placed is Placed.LOADED
    assert ask(admission, "n").placed is Placed.ROOM
    admission = fleet(seats(A), seats(B))
    for _ in range(2):
        admission.leave(ask(admission, marks=(1,), avoid=A), 1.0)
    near = ask(admission, marks=(1, 2))
    assert (near.host, near.placed) == (B, Placed.PROMPT)


def test_a_host_whose_better_one_is_kept_for_others_is_the_only_one() -> None:
    planner = frozenset({Role.PLANNER})
    admission = fleet(
        seats(A, 1, roles=planner | {Role.CHAT}),
        seats(B, 1, tier=2, roles=frozenset({Role.CHAT})),
        PLANNER=PoolLimits(seats=None, max_queue=9, reserved=1),
    )
    ticket = ask(admission)
    assert (ticket.host, ticket.placed) == (B, Placed.ONLY)


# What is kept.


def test_a_reserved_seat_is_kept_on_a_host_that_takes_its_role() -> None:
    admission = fleet(
        seats(A, 1, roles=frozenset({Role.PLANNER, Role.CHAT})),
        seats(B, 3, roles=frozenset({Role.CHAT})),
        PLANNER=PoolLimits(seats=None, max_queue=9, reserved=1),
    )
    assert [ask(admission).host for _ in range(4)] == [B, B, B, None]
    assert ask(admission, role=Role.PLANNER).host == A


def test_a_reserved_seat_is_not_kept_on_a_host_that_is_away() -> None:
    admission = fleet(
        seats(A, 1), seats(B, 2), PLANNER=PoolLimits(seats=None, max_queue=9, reserved=1)
    )
    admission.away(A, is_away=True)
    assert [ask(admission).host, ask(admission).host] == [B, None]
    assert ask(admission, role=Role.PLANNER).host == B


def test_a_reserved_seat_of_a_drained_host_is_none_and_the_last_one_elsewhere_is_kept() -> None:
    near = seats(A, 1)
    admission = fleet(near, seats(B, 1), PLANNER=PoolLimits(seats=None, max_queue=9, reserved=1))
    near.drained = True
    assert ask(admission).place is Place.WAITING
    assert ask(admission, role=Role.PLANNER).host == B


def test_the_cap_over_all_roles_holds_over_all_hosts() -> None:
    hosts = {"a": {"url": "http://a"}, "b": {"url": "http://b", "parallel": 9}}
    policy = parse(document((("global", "max_concurrent"), 2), (("hosts",), hosts)))
    admission = from_policy(policy)
    assert admission.global_seats == 2
    assert [admission.host(A).seats, admission.host(B).parallelism.host] == [2, 9]
    assert [str(host.host) for host in choice(admission).hosts] == ["a", "b"]


def test_one_host_that_is_named_has_its_rules() -> None:
    only = {"a": {"url": "http://a", "max_concurrent": 1, "memory_gb": 2}}
    admission = from_policy(parse(document((("hosts",), only))))
    assert (admission.global_seats, admission.host(A).rules.memory) == (1, 2 * GIB)
    with pytest.raises(KeyError):
        admission.host(DEFAULT_HOST)
    assert EVERYTHING.memory is None


def test_the_last_useful_seat_is_not_kept_where_another_host_has_one() -> None:
    admission = fleet(seats(A, useful=1), seats(B, useful=1))
    planners = (Role.PLANNER,)
    near = admission.host(A)
    assert choice(admission).has_useful_beside(near, planners)
    admission.host(B).take("m", 0.0)
    assert not choice(admission).has_useful_beside(near, planners)


# Sticky conversations.


def test_a_conversation_goes_on_where_it_was_while_that_costs_nothing() -> None:
    admission = fleet(seats(A), seats(B))
    first = ask(admission, marks=(1,))
    other = ask(admission, marks=(8, 9))
    assert (first.host, other.host) == (A, B)
    for ticket in (first, other):
        admission.leave(ticket, 1.0)
    again = ask(admission, marks=(8, 9, 10))
    assert again.host == B
    # B has a call already, A has none: nobody is made slower to spare a prompt.
    assert ask(admission, marks=(8, 9, 11)).host == A


# Whatever happens.

ROLES = (Role.PLANNER, Role.EXECUTOR, Role.CHAT)
PLACES = (A, B, C)
MODELS = "mnk"
asks = st.tuples(st.just("ask"), st.sampled_from(ROLES), st.sampled_from(MODELS))
happens = st.one_of(
    *(asks, asks, asks),
    st.tuples(st.just("end"), st.integers(0, 20), st.just("")),
    st.tuples(st.sampled_from(["drain", "away", "bar"]), st.sampled_from(PLACES), st.booleans()),
    st.tuples(st.just("load"), st.sampled_from(PLACES), st.frozensets(st.sampled_from(MODELS))),
)
# As many as make hosts full: what begins with an empty list stays short.
events = st.lists(happens, min_size=15, max_size=40)
a_host = st.fixed_dictionaries(
    {
        "n": st.integers(1, 3),
        "tier": st.integers(1, 2),
        "weight": st.sampled_from([1.0, 2.0]),
        "models": st.sampled_from([None, patterns(["m", "n"])]),
        "roles": st.sampled_from([None, frozenset({Role.EXECUTOR, Role.CHAT})]),
    }
)


class World:
    """A fleet to which things happen, and what must hold of each seat that it gives."""

    def __init__(self, hosts: Sequence[Mapping[str, Any]], reserved: int = 0) -> None:
        self.hosts = [seats(name, **row) for name, row in zip(PLACES, hosts, strict=False)]
        self.admission = fleet(
            *self.hosts, PLANNER=PoolLimits(seats=None, max_queue=99, reserved=reserved)
        )
        self.barred: dict[Host, float] = {}
        choice(self.admission).bar = bars(self.barred)
        self.running: list[Ticket] = []
        self.waiting: list[Ticket] = []
        self.now = 0.0

    def happen(self, what: str, first: Any, second: Any) -> None:
        self.now += 1.0
        if what == "ask":
            self._ask(first, second)
        elif what == "end" and self.running:
            self.admission.leave(self.running.pop(first % len(self.running)), self.now)
        elif first in {host.host for host in self.hosts}:
            self._changes(what, first, second)
        self._fill()

    def _changes(self, what: str, name: Host, value: Any) -> None:
        host = self.admission.host(name)
        if what == "drain":
            host.drained = value
        elif what == "away":
            self.admission.away(name, is_away=value)
        elif what == "bar":
            self.barred[name] = math.inf if value else 0.0
        else:
            self.admission.note_loaded({model: model in value for model in MODELS}, name)

    def _ask(self, role: Role, model: str) -> None:
        ticket = Ticket(role, model, self.now, request_id=str(self.now))
        before = self._free(ticket)
        self.admission.ask(ticket, self.now)
        if ticket.place is Place.SEATED:
            self._is_seated(ticket, before)
        elif ticket.place is Place.WAITING:
            self.waiting.append(ticket)

    def _fill(self) -> None:
        """One at a time, as ``fill`` seats them, so that it is seen where each could have gone."""
        for ticket in self.admission.fill(self.now):
            self.waiting.remove(ticket)
            self._is_allowed(ticket)
            self.running.append(ticket)
        for host in self.hosts:
            assert host.running <= host.seats
        assert sum(host.running for host in self.hosts) == self.admission.running_local

    def _free(self, ticket: Ticket) -> dict[Host, tuple[Any, ...]]:
        """The hosts with a useful seat for the call that nobody else has reserved, in order."""
        chosen = choice(self.admission)
        return {
            host.host: _order(host, ticket.model, chosen.near(ticket))
            for host in chosen.open_to(ticket, self.now)
            if host.hold(ticket.model) is None
            and host.parallelism.fits(ticket.model)
            and not chosen.is_reserved(self.admission._pools, ticket.role, host)
        }

    def _is_seated(self, ticket: Ticket, free: Mapping[Host, tuple[Any, ...]]) -> None:
        self._is_allowed(ticket)
        assert ticket.host is not None
        # The best of all, so one with the model loaded rather than a load, within its tier.
        assert free[ticket.host] == min(free.values())
        own_tier, is_loaded = self.tier_at(ticket.host, ticket.model)
        for other in free:
            tier, other_has_it = self.tier_at(other, ticket.model)
            assert is_loaded or not other_has_it or tier != own_tier
        self.running.append(ticket)

    def free_for_planners(self) -> int:
        there = [host for host in self.hosts if host.rules.takes_role(Role.PLANNER)]
        return sum(host.seats - host.running for host in there if not host.is_shut)

    def tier_at(self, name: Host, model: str) -> tuple[int, bool]:
        """The host's tier, and whether it has the model loaded."""
        host = self.admission.host(name)
        return host.rules.tier, host.loaded.get(model) is True

    def _is_allowed(self, ticket: Ticket) -> None:
        assert ticket.host is not None
        host = self.admission.host(ticket.host)
        assert host.rules.takes(ticket.role, ticket.model)
        assert not host.is_shut
        may = choice(self.admission).hosts_of(ticket)
        all_barred = all(self.barred.get(other.host, 0.0) > 0 for other in may)
        assert self.barred.get(ticket.host, 0.0) <= 0 or all_barred


@given(st.lists(a_host, min_size=2, max_size=3), events)
def test_nobody_is_sent_where_he_may_not_go_nor_past_a_better_place(
    hosts: list[dict[str, Any]], events: list[tuple[str, Any, Any]]
) -> None:
    world = World(hosts)
    for event in events:
        world.happen(*event)
        # Nobody waits for a host while another one has a useful seat for him; but where every such
        # one would push out a busy model, and one that has his loaded is free sooner.
        for ticket in world.waiting:
            free = world._free(ticket)
            assert all(pushes for pushes, *_ in free.values())


@given(st.lists(a_host, min_size=2, max_size=3), events)
def test_the_last_seats_of_the_hosts_that_take_planners_are_theirs(
    hosts: list[dict[str, Any]], events: list[tuple[str, Any, Any]]
) -> None:
    world = World(hosts, reserved=1)
    for event in events:
        before = {ticket.request_id: ticket for ticket in world.running}
        world.happen(*event)
        runs_one = any(ticket.role is Role.PLANNER for ticket in world.running)
        for ticket in world.running:
            new = ticket.request_id not in before and ticket.role is not Role.PLANNER
            host = world.admission.host(ticket.host or A)
            if new and not runs_one and host.rules.takes_role(Role.PLANNER):
                assert world.free_for_planners() >= 1


@given(
    st.lists(a_host, min_size=2, max_size=2),
    a_host,
    events,
)
def test_a_drained_host_changes_nothing_for_the_others(
    hosts: list[dict[str, Any]], drained: dict[str, Any], events: list[tuple[str, Any, Any]]
) -> None:
    two, three = World(hosts), World([*hosts, drained])
    three.happen("drain", C, True)
    two.now = three.now
    for event in events:
        if event[1] == C:
            continue
        two.happen(*event)
        three.happen(*event)
        took = [
            [(ticket.arrived, ticket.host) for ticket in world.running] for world in (two, three)
        ]
        assert took[0] == took[1]
