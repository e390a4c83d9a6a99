"""What can be changed: every value is another than today's, and what belongs together stays so."""

from __future__ import annotations

from modelsplit_sim.host_shape import HostShape, ModelShape
from modelsplit_sim.replay.settings import MAX_LOADED, NUM_PARALLEL, Candidate, Setting, knobs
from support.replays import rules

HOST = HostShape(
    "small",
    vram_gb=12.0,
    models={
        name: ModelShape(10.0, 1000.0, gb=4.0, slot_gb=0.5) for name in ("qwen3:4b", "qwen3:8b")
    },
)


def values(path: tuple[str, ...]) -> list[object]:
    every = (setting for knob in knobs(rules(), HOST) for setting in knob)
    return [each.changes[path] for each in every if path in each.changes]


def test_every_value_is_another_than_todays() -> None:
    assert values(("roles", "PLANNER", "reserved")) == [0, 2]
    assert values(("global", "parallel")) == [1, 2, 4]
    assert values(NUM_PARALLEL) == [2, 4, 8]
    assert values(MAX_LOADED) == [1, 2, 4]


def test_all_that_the_search_is_for_can_be_changed() -> None:
    keys = {path[-1] for knob in knobs(rules(), HOST) for each in knob for path in each.changes}
    assert keys >= {
        *("max_concurrent", "reserved", "max_wait_ms", "ageing_ms", "primary", "fallback"),
        *(NUM_PARALLEL[-1], MAX_LOADED[-1]),
    }


def test_one_model_for_several_roles_is_one_setting() -> None:
    primaries = [
        {path[1]: value for path, value in each.changes.items() if path[-1] == "primary"}
        for knob in knobs(rules(), HOST)
        for each in knob
    ]
    assert dict.fromkeys(("PLANNER", "EXECUTOR", "HEAVY"), "qwen3:4b") in primaries
    assert dict.fromkeys(("PLANNER", "EXECUTOR"), "qwen3:8b") in primaries


def test_a_wait_beyond_the_usual_is_allowed_with_it() -> None:
    for knob in knobs(rules(), HOST):
        for each in knob:
            for path, value in each.changes.items():
                if path[-1] == "max_wait_ms" and value > 10_000:
                    assert each.changes[(*path[:-1], "allow_long_wait")] is True


def test_kinds_can_be_left_alone() -> None:
    kinds = {each.kind for knob in knobs(rules(), HOST, ("models", "host")) for each in knob}
    assert kinds == {"line"}


def test_a_candidate_is_an_overlay_and_lines_of_ollamas_unit() -> None:
    seat = Setting("line", {("roles", "PLANNER", "reserved"): 2})
    slots = Setting("host", {NUM_PARALLEL: 2, MAX_LOADED: 1})
    candidate = Candidate((seat, slots))
    assert candidate.overlay == {"roles": {"PLANNER": {"reserved": 2}}}
    assert candidate.unit_lines == [
        'Environment="OLLAMA_MAX_LOADED_MODELS=1"',
        'Environment="OLLAMA_NUM_PARALLEL=2"',
    ]
    assert candidate.without(slots) == Candidate((seat,))
    assert Candidate().overlay == {}


def test_more_slots_take_more_memory() -> None:
    slots = Candidate((Setting("host", {NUM_PARALLEL: 4}),))
    host = slots.host(HOST)
    assert host.num_parallel == 4
    assert host.of("qwen3:4b").gb == 5.5
    assert Candidate().host(HOST) == HOST


def test_where_no_figures_of_models_are_known_the_policys_own_are_tried() -> None:
    primaries = {
        value
        for knob in knobs(rules(), HostShape("plain"))
        for each in knob
        for path, value in each.changes.items()
        if path[-1] == "primary"
    }
    assert primaries == {"qwen3:4b", "qwen3:8b", "gemma3:12b", "gpt-oss:20b"}


def test_one_setting_more_takes_the_place_of_another_value_for_its_keys() -> None:
    two, four = (Setting("host", {NUM_PARALLEL: n}) for n in (2, 4))
    seats = Setting("line", {("roles", "PLANNER", "max_concurrent"): 3})
    candidate = Candidate((two,)).plus(seats).plus(four)
    assert candidate.settings == (seats, four)


def test_beside_another_what_both_have_is_there_once() -> None:
    slots = Setting("host", {NUM_PARALLEL: 4})
    seats = Setting("line", {("roles", "PLANNER", "max_concurrent"): 3})
    assert Candidate((slots,)).beside(Candidate((slots, seats))).settings == (slots, seats)
