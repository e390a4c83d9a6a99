"""What a broken exchange amounts to on a route that is passed through."""

from __future__ import annotations

from modelsplit_policy.failures import ErrorCode, Reason
from modelsplit_proxy.http.upstream import Fault, UpstreamError, UpstreamTarget
from modelsplit_proxy.passthrough import exchange_failures

REFUSED = UpstreamError(Fault.REFUSED, "connection refused")
HERE = UpstreamTarget("127.0.0.1", 11434, "127.0.0.1:11434")
THERE = UpstreamTarget("gpu2.example", 11434, "gpu2.example:11434")


def test_with_one_its_address_and_what_to_type_about_it_are_told() -> None:
    failure = exchange_failures.with_one(REFUSED, THERE)
    assert (failure.code, failure.reason) == (ErrorCode.UNREACHABLE_LOCAL, Reason.CONNECT_REFUSED)
    assert failure.message.startswith("Ollama at http://gpu2.example:11434 is not answering")
    assert failure.message.endswith(f"try `{THERE.steps.start}`")


def test_with_all_every_address_is_told_and_what_to_type_about_any() -> None:
    failure = exchange_failures.with_all(REFUSED, [HERE, THERE], "127.0.0.1:2")
    told = "Ollama at http://127.0.0.1:11434, http://gpu2.example:11434 is not answering"
    assert failure.message.startswith(told)
    assert failure.message.endswith("try `modelsplit host list --admin 127.0.0.1:2`")
    assert THERE.steps.start not in failure.message
