"""What was learned of hosts and models, over a restart."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from modelsplit_policy.learned import LearnedHost, LearnedModel
from modelsplit_policy.parallelism import Parallelism
from modelsplit_proxy.runtime.clock import SystemClock
from modelsplit_proxy.watch.learned import LearnedKeeper
from support.stores import execute, locked, opened

if TYPE_CHECKING:
    from pathlib import Path

    from modelsplit_proxy.storage.writer import Store
    from modelsplit_proxy.watch.loaded_models import LoadedModelsWatch
    from modelsplit_proxy.watch.upstream_probe import UpstreamProbe

UPSTREAM = "127.0.0.1:11434"
FIERCE = LearnedHost((0.0, 0.0, 0.5), (0.0, 0.0, 3.0), 480.0, 1200.0)


class Seen:
    """What Ollama has said of itself so far."""

    def __init__(self, version: str | None = "0.33.0", **digests: str) -> None:
        self.version = version
        self.digests = digests


def keeper(
    store: Store, seen: Seen, learned: Parallelism | None = None, upstream: str = UPSTREAM
) -> tuple[LearnedKeeper, Parallelism]:
    parallelism = learned or Parallelism(cap=6, host=None, models={})
    loaded_models, probe = cast("LoadedModelsWatch", seen), cast("UpstreamProbe", seen)
    made = LearnedKeeper(parallelism, loaded_models, probe, store, upstream, SystemClock())
    return made, parallelism


async def kept(directory: Path, seen: Seen) -> None:
    """A process learns, and ends."""
    known = Parallelism(cap=6, host=None, models={})
    with opened(directory) as store:
        mine, _ = keeper(store, seen, known)
        await mine.look()
        known.recall(FIERCE, SystemClock().now())
        for name in seen.digests:
            known.recall_model(name, LearnedModel(4, None, 0.02))
        known.lessons += 1
        mine.keep()


async def test_the_next_process_knows_what_the_last_one_learned(tmp_path: Path) -> None:
    await kept(tmp_path, Seen(m="sha256:1"))
    with opened(tmp_path) as store:
        seen = Seen()
        mine, learned = keeper(store, seen)
        await mine.look()
        assert learned.shares.share(2) == pytest.approx(0.5 / 3.0)
        assert learned.shares.harms(2) is True
        assert learned.slots("m") == 1, "it has not been seen yet"
        seen.digests["m"] = "sha256:1"
        await mine.look()
        assert learned.slots("m") == 4


async def test_another_version_upstream_or_digest_begins_anew(tmp_path: Path) -> None:
    await kept(tmp_path, Seen(m="sha256:1"))
    with opened(tmp_path) as store:
        for seen, upstream in (
            (Seen("0.34.0", m="sha256:1"), UPSTREAM),
            (Seen(m="sha256:1"), "127.0.0.1:9"),
        ):
            mine, learned = keeper(store, seen, upstream=upstream)
            await mine.look()
            assert (learned.shares.share(2), learned.slots("m")) == (None, 1)
        mine, learned = keeper(store, Seen(m="sha256:2"))
        await mine.look()
        assert learned.shares.share(2) is not None
        assert learned.slots("m") == 1, "the model was replaced"


async def test_nothing_is_recalled_before_the_version_is_known(tmp_path: Path) -> None:
    await kept(tmp_path, Seen())
    with opened(tmp_path) as store:
        seen = Seen(None)
        mine, learned = keeper(store, seen)
        await mine.look()
        assert learned.shares.share(2) is None
        seen.version = "0.33.0"
        await mine.look()
        assert learned.shares.share(2) is not None


async def test_what_cannot_be_read_costs_what_would_have_been_known(tmp_path: Path) -> None:
    await kept(tmp_path, Seen(m="sha256:1"))
    execute(tmp_path, "UPDATE learned SET value = 'nonsense'")
    with opened(tmp_path) as store:
        mine, learned = keeper(store, Seen(m="sha256:1"))
        await mine.look()
        assert (learned.host, learned.slots("m")) == (1, 1)


async def test_a_month_later_nothing_is_recalled_and_old_rows_go(tmp_path: Path) -> None:
    await kept(tmp_path, Seen("0.1.0", m="sha256:1"))
    execute(tmp_path, "UPDATE learned SET at = at - 2700000")
    with opened(tmp_path) as store:
        mine, learned = keeper(store, Seen("0.1.0", m="sha256:1"))
        await mine.look()
        assert (learned.shares.share(2), learned.slots("m")) == (None, 1)
    await kept(tmp_path, Seen("0.2.0"))
    assert execute(tmp_path, "SELECT version, digest FROM learned") == [("0.2.0", "")]


async def test_nothing_new_is_not_written(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        mine, learned = keeper(store, Seen())
        await mine.look()
        mine.keep()
        assert store.waiting == 0
        learned.lessons += 1
        with locked(tmp_path):
            mine.keep()
            assert store.waiting == 1
