"""The root of the admin port says where everything is."""

from __future__ import annotations

from support.harness import running


async def test_the_root_lists_every_route() -> None:
    async with running() as up, up.admin() as admin:
        answer = await admin.request("GET", "/")
        assert (answer.status, answer["Content-Type"]) == (200, "text/plain; charset=utf-8")
        listed = answer.body.decode().splitlines()[2:]
        assert listed == sorted(path for path in up.app._admin_handler.routes if path != "/")
        assert {"/stats", "/healthz", "/requests/{id}"} <= set(listed)
