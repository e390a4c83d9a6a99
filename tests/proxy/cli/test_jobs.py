"""`modelsplit jobs`: from the running proxy, or from its file when nothing runs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
import pytest

from modelsplit_policy.vocabulary import JobState
from modelsplit_proxy.cli import jobs
from modelsplit_proxy.cli.commands import COMMANDS
from modelsplit_proxy.cli.main import build_parser
from modelsplit_proxy.cli.output import CommandError, talk
from modelsplit_proxy.config.settings import Address
from modelsplit_proxy.records import job_store
from modelsplit_proxy.records.query_error import QueryError
from modelsplit_proxy.records.recorder import Recorder
from modelsplit_proxy.runtime.clock import SystemClock
from modelsplit_sim.config import SimConfig
from support.harness import Running, running
from support.records import answered
from support.stores import opened

Capture = pytest.CaptureFixture[str]
NOBODY = Address("127.0.0.1", 1)
JSON = {"Content-Type": "application/json"}
END_US = 1795393750000000


def asked(*arguments: str) -> tuple[jobs.JobsArguments, Path | None]:
    args = build_parser(COMMANDS).parse_args(["jobs", *arguments])
    return jobs.read_arguments(args), args.state


def run(*arguments: str, admin: Address = NOBODY) -> int:
    question, state = asked(*arguments)
    try:
        return jobs.run(question, admin, state, SystemClock())
    except CommandError as error:
        talk(str(error))
        return error.code


async def of(up: Running, *arguments: str) -> int:
    return await asyncio.to_thread(run, *arguments, admin=Address("127.0.0.1", up.admin_port))


@pytest.fixture
def kept(tmp_path: Path) -> str:
    """One job that was finished and one that is open, in a file that nobody has open."""
    with opened(tmp_path) as store:
        recorder = Recorder(store)
        for job_id in ("done", "open"):
            recorder.call_ended(answered(request_id=f"of-{job_id}", job_id=job_id))
        recorder.catch_up()
        store.submit(lambda db: job_store.finish(db, "done", END_US, JobState.OK, None))
        store.submit(lambda db: job_store.close(db, "done"))
        assert store.catch_up(3600)
    return str(tmp_path)


async def test_where_there_are_no_jobs_it_is_said_how_there_would_be(capsys: Capture) -> None:
    async with running() as up:
        assert await of(up) == 0
        out, err = capsys.readouterr()
        assert (out, err) == (
            "",
            "modelsplit: no jobs are kept: a call belongs to one by its header X-LLM-Job-Id\n",
        )
        assert await of(up, "--json") == 0
        assert capsys.readouterr() == ("[]\n", "")


async def test_jobs_of_the_running_proxy(capsys: Capture) -> None:
    async with running(SimConfig(tokens=2)) as up, up.client() as client, up.admin() as admin:
        for job_id in ("a", "b"):
            body = {"model": "planner", "prompt": "x", "stream": False}
            await client.request("POST", "/api/generate", body, {"X-LLM-Job-Id": job_id})
            ok = orjson.dumps({"ok": job_id == "a"})
            answer = await admin.request("POST", f"/jobs/{job_id}/finish", ok, JSON)
            assert answer.status == 200
        assert await of(up) == 0
        [head, *lines] = capsys.readouterr().out.splitlines()
        assert head.startswith("LAST EVENT ")
        assert [line.split()[-1] for line in lines] == ["a", "b"]
        assert await of(up, "--job-state", "failed", "--since", "1h", "--json") == 0
        [job] = orjson.loads(capsys.readouterr().out)
        assert (job["job_id"], job["state"], job["calls"]) == ("b", "failed", 1)
        assert await of(up, "a") == 0
        shown = capsys.readouterr().out
        assert shown.startswith("job        a\nstate      ok after ")
        assert "PLANNER  qwen3:4b           |" in shown
        assert await of(up, "a", "--json") == 0
        assert orjson.loads(capsys.readouterr().out)["timeline"][0]["llm_model"] == "qwen3:4b"
        assert await of(up, "nobody") == 1
        assert await of(up, "--job-state", "done") == 2
        assert "the states are open, ok, failed, expired" in capsys.readouterr().err
        assert await of(up, "--until", "1h") == 0
        assert capsys.readouterr().err == "modelsplit: no job matches\n"


def test_without_a_proxy_the_file_tells_the_same(kept: str, capsys: Capture) -> None:
    assert run("--state", kept) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [(line[3], line[-1]) for line in lines] == [("open", "open"), ("ok", "done")]
    assert run("done", "--state", kept) == 0
    assert "state      ok after 6.750 s, its start was never told" in capsys.readouterr().out
    assert run("open", "--state", kept, "--json") == 0
    assert orjson.loads(capsys.readouterr().out)["total_ms"] == 3000.0
    assert run("nobody", "--state", kept) == 1
    assert run("--job-state", "x", "--state", kept) == 2


def test_nothing_that_runs_is_3(capsys: Capture) -> None:
    assert run() == run("a") == 3
    assert "nobody listens at http://127.0.0.1:1:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["a", "--since", "1h"], "an ID names one job"),
        (["a", "--limit", "3"], "an ID names one job"),
        (["--limit", "0"], "--limit 0 is not between 1 and 1000"),
        ([""], "the ID is empty"),
    ],
)
def test_flags_that_do_not_go_together(arguments: list[str], error: str) -> None:
    with pytest.raises(QueryError, match=error):
        asked(*arguments)
