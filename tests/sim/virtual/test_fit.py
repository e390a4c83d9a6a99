"""A host's figures from records: known ones are recovered, and what is not known is said."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from modelsplit_sim.host_shape import HostShape, ModelShape
from modelsplit_sim.replay.fit import Fit, fit
from modelsplit_sim.replay.recorded import Recorded, RecordedAttempt, TraceError
from modelsplit_sim.replay.records import recorded
from modelsplit_sim.replay.run import Contender, play
from modelsplit_sim.replay.workload import workload_of
from support.replays import rules

if TYPE_CHECKING:
    from collections.abc import Iterable

MODELS = {
    "qwen3:4b": ModelShape(14.0, 2500.0, prompt_ms_per_token=0.45, prompt_ms=30.0, gb=3.5),
    "qwen3:8b": ModelShape(23.0, 4500.0, prompt_ms_per_token=0.8, prompt_ms=40.0, gb=6.2),
    "gemma3:12b": ModelShape(36.0, 7000.0, prompt_ms_per_token=1.2, prompt_ms=50.0, gb=9.5),
}
HOST = HostShape(
    "known",
    contention=1.0,
    batching=0.3,
    num_parallel=2,
    vram_gb=12.0,
    keep_alive_s=300.0,
    spread=0.08,
    models=MODELS,
)
TRAFFIC: dict[str, Any] = {
    "about": "three models, often at once",
    "seconds": 6000,
    "calls": {
        "plan": {"model": "planner", "output": [140, 400], "prompt": [1200, 2600]},
        "do": {"model": "executor", "output": [200, 600], "prompt": [1500, 4000]},
        "think": {"model": "heavy", "output": [300, 600], "prompt": [3000, 6000]},
    },
    "streams": [
        {"call": "plan", "every_s": 9, "burst_share": 0.3},
        {"call": "do", "every_s": 30},
        {"call": "think", "every_s": 200},
    ],
}


def records(host: HostShape = HOST, direct: str | None = "") -> list[Recorded]:
    workload = workload_of(TRAFFIC, "x")
    return recorded(play(Contender("x", rules(), direct), host, workload.drawn(1), 1))


def fitted(host: HostShape = HOST, direct: str | None = "") -> Fit:
    return fit(records(host, direct))


@pytest.fixture(scope="module")
def known() -> Fit:
    """Of the known host."""
    return fitted()


def test_a_hosts_figures_are_recovered_within_a_tenth(known: Fit) -> None:
    shape = known.shape
    assert shape.contention == pytest.approx(1.0, rel=0.1)
    assert shape.batching == pytest.approx(0.3, rel=0.1)
    assert (shape.free, shape.num_parallel) == (1, 2)
    for name, model in MODELS.items():
        own = shape.models[name]
        assert own.ms_per_token == pytest.approx(model.ms_per_token, rel=0.1)
        assert own.prompt_ms_per_token == pytest.approx(model.prompt_ms_per_token, rel=0.1)
        # Where each load waits for room, records tell no more of it.
        assert own.load_ms >= 0.99 * model.load_ms
    assert shape.spread == pytest.approx(0.08, rel=0.25)
    assert known.error_p50 < 0.08


def test_so_they_are_from_what_a_proxy_recorded() -> None:
    found = fitted(direct=None)
    for name, model in MODELS.items():
        own = found.shape.models[name]
        assert own.ms_per_token == pytest.approx(model.ms_per_token, rel=0.1)
        assert own.load_ms == pytest.approx(model.load_ms, rel=0.1)


@pytest.mark.parametrize("contention", [0.3, 3.0])
def test_contention_is_found_whether_runners_hardly_share_or_fight(contention: float) -> None:
    host = replace(HOST, contention=contention, vram_gb=None)
    assert fitted(host).shape.contention == pytest.approx(contention, rel=0.1)


def test_runners_that_slow_nobody_are_told_from_those_that_do() -> None:
    models = {name: replace(model, gb=0.0) for name, model in MODELS.items()}
    host = replace(HOST, free=2, contention=1.0, vram_gb=None, models=models)
    shape = fitted(host).shape
    assert shape.free == 2 or shape.slowdown(2) < 1.1


def test_every_figure_has_an_interval_and_the_calls_it_rests_on(known: Fit) -> None:
    figures = {figure.name: figure for figure in known.figures}
    assert {"contention", "batching", "qwen3:4b ms_per_token"} <= set(figures)
    for figure in figures.values():
        assert figure.low is not None
        assert figure.high is not None
        assert figure.low <= figure.value <= figure.high
        assert figure.calls > 0


def test_what_records_do_not_determine_is_said() -> None:
    """One call after the other, of one model."""
    lonely = TRAFFIC | {"streams": [{"call": "plan", "every_s": 60}]}
    run = play(Contender("x", rules(), ""), HOST, workload_of(lonely, "x").drawn(1), 1)
    # None of them came while another was there.
    calls = [call for call in recorded(run) if not call.attempts[0].upstream_wait_ms]
    said = "\n".join(fit(calls[::3]).warnings)
    assert "no two models computed at once for long: contention 1 is assumed" in said
    assert "no model computed two calls at once for long: batching 0 is assumed" in said
    assert "nobody waited inside Ollama for a slot: num_parallel is 1 or more" in said
    assert "records do not say how much memory models take" in said
    assert "qwen3:4b was never loaded: 1700 ms are assumed" in said


def test_records_without_durations_are_none() -> None:
    with pytest.raises(TraceError, match="no model has 5 answers whose durations are known"):
        fit([replace(call, attempts=()) for call in records()[:50]])


def one_after_the_other(paces: Iterable[float], tokens: int = 50) -> list[Recorded]:
    """Calls of one model, each with its milliseconds a token, two seconds apart."""
    return [
        Recorded(
            arrived=2.0 * number,
            route="/api/chat",
            role="PLANNER",
            requested_model="planner",
            outcome="ok",
            attempts=(
                RecordedAttempt(
                    *("qwen3:4b", "ok", 0.0, 0.0, 0.0, 1.0, tokens * pace + 60.0),
                    prompt_ms=60.0,
                    eval_ms=tokens * pace,
                    output_tokens=tokens,
                ),
            ),
        )
        for number, pace in enumerate(paces)
    ]


def test_all_calls_together_take_as_long_as_they_did() -> None:
    """The middle one of three takes 10 ms a token; but the machine is busy for 11."""
    found = fit(one_after_the_other([10.0, 10.0, 13.0] * 30))
    assert found.shape.models["qwen3:4b"].ms_per_token == pytest.approx(11.0)


def test_a_call_that_took_twice_as_long_says_nothing_of_the_speed() -> None:
    found = fit(one_after_the_other([*[10.0] * 29, 90.0]))
    assert found.shape.models["qwen3:4b"].ms_per_token == pytest.approx(10.0)


def test_a_model_with_few_answers_has_rough_figures_and_is_not_left_out() -> None:
    """Whoever replays its calls would have to give them by hand, or have another model's."""
    calls = one_after_the_other([10.0] * 40)
    calls += [
        replace(
            call,
            arrived=call.arrived + 1000.0,
            attempts=(replace(call.attempts[0], model="gemma3:12b"),),
        )
        for call in one_after_the_other([30.0] * 3)
    ]
    found = fit(calls)
    assert found.shape.models["gemma3:12b"].ms_per_token == pytest.approx(30.0, rel=0.1)
    assert "gemma3:12b has only 3 answers with durations: its figures are rough" in found.warnings


def test_what_a_call_takes_on_its_way_is_part_of_it() -> None:
    calls = [
        replace(call, attempts=(replace(call.attempts[0], ended_ms=568.0, dispatched_ms=0.5),))
        for call in one_after_the_other([10.0] * 30)
    ]
    assert fit(calls).shape.models["qwen3:4b"].prompt_ms == pytest.approx(67.5)
    # One in three takes 30 ms longer on its way: who stands behind waits for that too.
    calls[::3] = [
        replace(call, attempts=(replace(call.attempts[0], ended_ms=598.0),)) for call in calls[::3]
    ]
    assert fit(calls).shape.models["qwen3:4b"].prompt_ms == pytest.approx(77.5)


def test_a_machine_whose_speed_wanders_is_known_less_well_than_one_that_jitters() -> None:
    """The same paces: in turn, or for a minute each."""
    quick, slow = [10.0] * 30, [12.0] * 30
    steady = fit(
        one_after_the_other([pace for both in zip(quick, slow, strict=True) for pace in both] * 3)
    )
    wanders = fit(one_after_the_other([*quick, *slow] * 3))
    drifting = "how fast the machine is changed by"
    assert not any(drifting in said for said in steady.warnings)
    assert any(drifting in said for said in wanders.warnings)
    widths = [_width(found, "qwen3:4b ms_per_token") for found in (steady, wanders)]
    assert widths[1] > 2 * widths[0]
    # Half of the parts at 10/11 of the middle pace, half at 12/11.
    assert wanders.shape.drift == pytest.approx(1 / 11, rel=0.1)
    assert steady.shape.drift == 0.0


def _width(found: Fit, name: str) -> float:
    [figure] = [each for each in found.figures if each.name == name]
    assert figure.low is not None
    assert figure.high is not None
    return figure.high - figure.low


def beside_each_other(slowness: float) -> list[Recorded]:
    """As above; then five pairs of two models, each taking so many times as long."""
    calls = one_after_the_other([10.0] * 40)
    for number in range(5):
        for model in ("qwen3:4b", "qwen3:8b"):
            [pair] = one_after_the_other([10.0 * slowness])
            attempt = replace(pair.attempts[0], model=model)
            calls.append(replace(pair, arrived=1000.0 + 100 * number, attempts=(attempt,)))
    return calls


def test_contention_by_few_calls_is_said_to_be_hardly_known() -> None:
    found = fit(beside_each_other(40.0))
    assert found.shape.contention == 20.0
    assert "contention is 20 or more, by few calls beside others" in found.warnings
