"""Budgets for Prometheus and ``/stats``."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest

from modelsplit_proxy.metrics import budgets as budget_metrics
from modelsplit_proxy.metrics.budgets import BudgetMetrics
from support.budget_keepers import budget_keeper

BUDGETS = {
    "budgets": [
        {"name": "real", "role": "HEAVY", "calls": 2, "window": "1h"},
        {"name": "trial", "role": "HEAVY", "calls": 1, "usd": 1.5, "window": "1h", "shadow": True},
    ]
}


async def test_what_is_used_what_is_allowed_and_who_was_refused(tmp_path: Path) -> None:
    async with budget_keeper(tmp_path, overlay=BUDGETS) as held:
        reasons = [await held.sent() for _ in range(3)]
        assert reasons == [None, None, "calls"]
        registry = CollectorRegistry()
        registry.register(BudgetMetrics(held.budget_keeper))
        lines = generate_latest(registry).decode().splitlines()
        assert [line for line in lines if not line.startswith("#")] == [
            'modelsplit_budget_used{budget="real",unit="calls"} 2.0',
            'modelsplit_budget_used{budget="trial",unit="calls"} 2.0',
            'modelsplit_budget_used{budget="trial",unit="usd"} 0.0',
            'modelsplit_budget_limit{budget="real",unit="calls"} 2.0',
            'modelsplit_budget_limit{budget="trial",unit="calls"} 1.0',
            'modelsplit_budget_limit{budget="trial",unit="usd"} 1.5',
            'modelsplit_budget_refusals_total{budget="real",shadow="false"} 1.0',
            'modelsplit_budget_refusals_total{budget="trial",shadow="true"} 1.0',
            "modelsplit_approved_usd 0.0",
            "modelsplit_state_taken_over 0.0",
            "modelsplit_budget_writes_lost_total 0.0",
        ]
        told = budget_metrics.fields(held.budget_keeper)
        assert told["writes_lost"] == 0
        assert (told["open"], told["approvals"], told["approved_usd_left"]) == (True, 0, 0.0)
        assert [(one["name"], one["calls"]) for one in told["budgets"]] == [
            ("real", 2),
            ("trial", 2),
        ]
