"""A proxy before the stand-in Ollama and the stand-in cloud, for a test."""

from __future__ import annotations

import contextlib
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

from modelsplit_policy.approvals import ApprovalAction, Change
from modelsplit_policy.budgets import nano
from modelsplit_policy.vocabulary import Role
from modelsplit_proxy.limits import budget_store
from modelsplit_proxy.storage.state_file import FILE_NAME
from modelsplit_sim.cloud import KEY, Cloud
from support.harness import Overlay, Running, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

MODEL = "claude-3-opus"
ITS_NAME = "claude-3-opus-20240229"
# Calls of every role may leave.
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
# What says hi, by route.
ASKED: dict[str, dict[str, Any]] = {
    "/api/generate": {"prompt": "hi"},
    "/api/chat": CHAT,
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"prompt": "hi"},
    "/v1/responses": {"input": "hi"},
    "/v1/messages": CHAT | {"max_tokens": 100},
}
FROM_ALL: Overlay = {"cloud": {"allow_from": {"roles": [role.value for role in Role]}}}


def cloud_policy(
    url: str, *, provider: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    row = {"base_url": url, "models": {MODEL: ITS_NAME}} | (provider or {})
    return {"cloud": {"providers": {"anthropic": row}} | more}


def approve(state: Path, usd: float = 5.0) -> None:
    """As another process does, while the proxy runs."""
    change = Change(0, 0.0, 0.0, ApprovalAction.APPROVE, "kim", "a trial", nano(usd), 1e12)
    with closing(sqlite3.connect(state / FILE_NAME)) as db, db:
        budget_store.add_change(db, change)


@contextlib.asynccontextmanager
async def with_a_cloud(
    state: Path,
    *,
    approved: float | None = 5.0,
    overlay: dict[str, Any] | None = None,
    key: str = KEY,
    **more: Any,
) -> AsyncIterator[tuple[Running, Cloud]]:
    """``approved``: US dollars; None: nothing is. ``key``: the one that the proxy has."""
    async with Cloud() as cloud:
        policy = cloud_policy(cloud.url, **more) | (overlay or {})
        environ = {"ANTHROPIC_API_KEY": key}
        async with running(overlay=policy, state=state, environ=environ) as up:
            if approved is not None:
                approve(state, approved)
            yield up, cloud
