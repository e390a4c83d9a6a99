"""The Azure format: rows made by hand, roles by mapping, thinning that keeps bursts."""

from __future__ import annotations

import pytest

from modelsplit_sim.replay.azure import Arrival, AzureTraffic, Mapping, mapping_of, read
from modelsplit_sim.replay.recorded import TraceError
from support.replays import rules

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
ROWS = [
    HEADER,
    "2023-11-16 18:15:46.6805900,374,44",
    "2023-11-16 18:15:50.9951690,396,109",
    "",
    "2023-11-16 18:15:51.2224670,879,355",
]


def test_rows_are_seconds_since_the_first_and_tokens() -> None:
    first, second, third = read(ROWS)
    assert first == Arrival(0.0, 374, 44)
    assert second.at == pytest.approx(4.314579)
    assert second[1:] == (396, 109)
    assert third.output_tokens == 355


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "there is no call in it"),
        (["time,in,out"], f"line 1: the first line is not {HEADER}"),
        ([HEADER], "there is no call in it"),
        ([HEADER, "2023-11-16 18:15:46.68,374"], "line 2: 2 cells where there are three"),
        ([HEADER, *ROWS[1:2], "soon,1,2"], 'line 3: TIMESTAMP "soon" is no time'),
        (
            [HEADER, "2023-11-16 18:15:46.68,many,2"],
            'line 2: ContextTokens "many" is no number of tokens',
        ),
        (
            [HEADER, "2023-11-16 18:15:46.68,-1,2"],
            'line 2: ContextTokens "-1" is no number of tokens',
        ),
    ],
)
def test_a_broken_row_is_named_by_its_line(rows: list[str], says: str) -> None:
    with pytest.raises(TraceError) as error:
        read(rows)
    assert str(error.value).startswith(says)


def test_roles_are_told_by_name_and_by_length() -> None:
    assert mapping_of("planner") == Mapping("planner")
    mapping = mapping_of("qwen3:8b,executor>300")
    assert [mapping.of(arrival) for arrival in read(ROWS)] == ["qwen3:8b", "qwen3:8b", "executor"]
    for text in ("", ",x>1", "a,b", "a,b>c"):
        with pytest.raises(ValueError, match=r"names no model|is not NAME"):
            mapping_of(text)


def test_every_so_many_th_arrival_is_kept() -> None:
    arrivals = [Arrival(float(n), 10, 20) for n in range(100)]
    source = AzureTraffic([(arrivals, Mapping("planner"))], rules(), thin=10)
    traffic, coverage = source.drawn(1)
    assert [demand.at for demand in traffic.demands] == [float(n) for n in range(0, 100, 10)]
    assert coverage.calls == 10
    assert coverage.parts["role"] == {"assumed": 10}
    with pytest.raises(TraceError, match="of every 1000 calls one is kept, and there are fewer"):
        AzureTraffic([(arrivals, Mapping("planner"))], rules(), thin=1000)


def test_several_files_begin_together_and_clients_wait_as_long_as_their_role_may_take() -> None:
    files = [(read(ROWS), Mapping("planner")), (read(ROWS), Mapping("llama3.2:1b"))]
    traffic, _ = AzureTraffic(files, rules()).drawn(1, load=2.0)
    assert [demand.model for demand in traffic.demands[:2]] == ["llama3.2:1b", "planner"]
    assert traffic.demands[-1].at == pytest.approx(4.541877 / 2, abs=1e-5)
    patience = {demand.model: demand.patience_s for demand in traffic.demands}
    assert patience == {"planner": 15.0, "llama3.2:1b": 60.0}


def test_another_seed_keeps_other_arrivals() -> None:
    arrivals = [Arrival(float(n), 10, 20 + n) for n in range(100)]
    source = AzureTraffic([(arrivals, Mapping("planner"))], rules(), thin=10)
    kept = [{d.output_tokens for d in source.drawn(seed)[0].demands} for seed in range(1, 11)]
    assert set.union(*kept) == set(range(20, 120)), "ten seeds, all of them once"
    assert sum(map(len, kept)) == 100


def test_halves_are_pieces_of_time_in_turn() -> None:
    arrivals = [Arrival(float(n), 10, 20 + n) for n in range(400)]
    source = AzureTraffic([(arrivals, Mapping("planner"))], rules(), thin=2)
    train, held = source.halves(50)
    both = []
    for half in (train, held):
        draws = [half.drawn(seed)[0].demands for seed in range(1, 9)]
        both.append({demand.output_tokens for demands in draws for demand in demands})
        assert {len(demands) for demands in draws} == {50}
        assert {demands[0].at for demands in draws} == {0.0}
    assert not both[0] & both[1]
    with pytest.raises(TraceError, match="too few calls to learn from some"):
        AzureTraffic([(arrivals[:3], Mapping("planner"))], rules(), thin=2).halves(50)
