"""Several hosts' words of one pull, as one's."""

from __future__ import annotations

from typing import Any

import orjson

from modelsplit_proxy.protocol.pull_progress import PullProgress


def told(progress: PullProgress, host: str, **fields: Any) -> Any:
    line = progress.line(host, orjson.dumps(fields))
    return orjson.loads(line) if line else None


def test_of_a_layer_all_of_it_on_all_hosts_is_told() -> None:
    progress = PullProgress()
    layer = {"status": "pulling abc", "digest": "sha256:abc", "total": 10}
    assert told(progress, "a", **layer) == layer | {"completed": 0}
    assert told(progress, "a", **layer, completed=4) == layer | {"completed": 4}
    both = layer | {"total": 20}
    assert told(progress, "b", **layer, completed=10) == both | {"completed": 14}
    assert told(progress, "a", **layer, completed=10) == both | {"completed": 20}


def test_any_other_word_is_told_once_and_the_end_when_all_have_ended() -> None:
    progress = PullProgress()
    assert told(progress, "a", status="pulling manifest") == {"status": "pulling manifest"}
    assert told(progress, "b", status="pulling manifest") is None
    for host in "ab":
        assert told(progress, host, status="success") is None
        progress.ended(host)
    assert orjson.loads(progress.last()) == {"status": "success"}


def test_what_failed_is_told_with_its_host_and_what_went_well_too() -> None:
    progress = PullProgress()
    assert told(progress, "a", status="success") is None
    assert told(progress, "b", error="no space left") is None
    for host in "abc":
        progress.ended(host)
    expected = "b: no space left; c: it broke off; done on a"
    assert orjson.loads(progress.last()) == {"error": expected}


def test_what_is_no_line_of_progress_is_left_out() -> None:
    progress = PullProgress()
    assert [progress.line("a", raw) for raw in (b"{", b"[]", b'{"status":1}', b"")] == [b""] * 4
