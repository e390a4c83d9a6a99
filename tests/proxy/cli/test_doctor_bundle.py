"""The archive for a bug report: what is in it, and what is taken out."""

from __future__ import annotations

import asyncio
import stat
import tarfile
from pathlib import Path
from typing import Any

import orjson
import pytest

from modelsplit_proxy.cli import doctor_bundle, status
from modelsplit_proxy.cli.doctor_bundle import Redaction
from modelsplit_proxy.cli.output import CommandError
from modelsplit_proxy.config.settings import Address
from support.doctoring import look
from support.harness import running


def contents(path: Path) -> dict[str, Any]:
    with tarfile.open(path) as archive:
        return {
            Path(member.name).name: orjson.loads(file.read())
            for member in archive
            if (file := archive.extractfile(member)) is not None
        }


def test_names_become_numbers_and_places_words() -> None:
    redact = Redaction(Path("/home/kim"), "gpu1")
    assert redact(
        [
            {"client": "10.0.0.7", "error": 'from 10.0.0.7 at gpu1, "/home/kim/p.json"'},
            {"client": "10.0.0.8", "job_id": "secret-plan", "llm_model": "qwen3:4b", "n": 3},
            {"client": None},
        ]
    ) == [
        {"client": "client-1", "error": 'from client-1 at MACHINE, "~/p.json"'},
        {"client": "client-2", "job_id": "job_id-3", "llm_model": "qwen3:4b", "n": 3},
        {"client": None},
    ]


def test_without_a_running_proxy_it_has_the_set_up(tmp_path: Path) -> None:
    environ = {
        "MODELSPLIT_LISTEN": "127.0.0.1:1",
        "MODELSPLIT_ALLOW_HOST": "gpu.example",
        "OLLAMA_HOST": "127.0.0.1",
        "OLLAMA_API_KEY": "secret",
        "OTHER": "secret",
    }
    path = tmp_path / "doctor.tar.gz"
    here = look(tmp_path, environ=environ)
    doctor_bundle.write(path, here, {"findings": []}, Path("/root"), "gpu1")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = contents(path)
    assert sorted(found) == [
        *("doctor.json", "ollama.json", "policy.json", "settings.json", "versions.json"),
    ]
    assert found["settings.json"] == {
        "MODELSPLIT_LISTEN": "127.0.0.1:1",
        "MODELSPLIT_ALLOW_HOST": "(set)",
        "OLLAMA_API_KEY": "(set)",
        "OLLAMA_HOST": "127.0.0.1",
    }
    assert found["policy.json"]["version"] == 1
    with pytest.raises(CommandError, match="is there already"):
        doctor_bundle.write(path, here, {}, Path("/root"), "gpu1")


async def test_of_a_running_proxy_it_has_the_last_calls_without_their_clients(
    tmp_path: Path,
) -> None:
    path = tmp_path / "doctor.tar.gz"
    async with running() as up:
        body = b'{"model":"planner","prompt":"a secret","stream":false}'
        async with up.client() as client:
            await client.request("POST", "/api/generate", body, {"X-LLM-Job-Id": "plan-x"})
        admin = Address("127.0.0.1", up.admin_port)

        def write() -> None:
            stats = status.ask(admin)
            here = look(tmp_path, stats=stats, settings={"admin": str(admin)})
            doctor_bundle.write(path, here, {}, Path("/root"), "")

        await asyncio.to_thread(write)
    found = contents(path)
    [call] = found["requests.json"]
    assert {call["client"], call["job_id"]} == {"client-2", "job_id-1"}
    text = orjson.dumps(found).decode()
    assert "secret" not in text
    assert "plan-x" not in text


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot be made: No such file or directory"):
        doctor_bundle.write(tmp_path / "no" / "x", look(tmp_path), {}, Path("/root"), "")
