"""One file carries everything: what is in it, what it does installed, and what it leaves behind."""

from __future__ import annotations

import re
import tarfile
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

from support import wheels
from support.process import ollama, serving
from support.wheels import Installed

CARRIED = (
    "modelsplit_proxy/data/model-policy.json",
    "modelsplit_proxy/data/model-policy.schema.json",
    "modelsplit_proxy/data/modelsplit.service",
    "modelsplit_proxy/data/modelsplit.socket",
    "modelsplit_proxy/data/user/modelsplit.service",
    "modelsplit_proxy/admin/static/index.html",
    "modelsplit_proxy/admin/static/uplot.LICENSE",
    "share/bash-completion/completions/modelsplit",
    "share/zsh/site-functions/_modelsplit",
    "share/fish/vendor_completions.d/modelsplit.fish",
    "share/man/man1/modelsplit.1",
    "share/modelsplit/prometheus/modelsplit.rules.yml",
    "share/modelsplit/grafana/modelsplit.json",
    "share/modelsplit/kubernetes/modelsplit.yaml",
    "share/modelsplit/compose.yaml",
    "share/modelsplit/take-over-11434",
    "modelsplit_policy/py.typed",
    "modelsplit_client/py.typed",
)


def names(wheel: Path) -> set[str]:
    """What a wheel has in it, as it is named below the prefix or below its packages."""
    with zipfile.ZipFile(wheel) as archive:
        listed = archive.namelist()
    return {name.partition(".data/data/")[2] or name for name in listed}


def files(folder: Path) -> set[str]:
    """Every file below it; what Python makes of them as they are used does not count."""
    found = (path for path in folder.rglob("*") if not path.is_dir())
    return {str(path.relative_to(folder)) for path in found if path.suffix != ".pyc"}


def test_the_wheel_carries_everything(wheel: Path) -> None:
    assert set(CARRIED) - names(wheel) == set()
    assert not [name for name in names(wheel) if name.startswith(("tests", "bench"))]


def test_the_sdist_makes_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "sdist").mkdir()
    (tmp_path / "wheel").mkdir()
    sdist = wheels.build("sdist", wheels.ROOT, tmp_path / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    again = wheels.build("wheel", tmp_path / sdist.name.removesuffix(".tar.gz"), tmp_path / "wheel")
    assert names(again) == names(wheel)


def test_the_readme_in_the_metadata_has_no_link_that_leads_nowhere(wheel: Path) -> None:
    """An index shows it away from the tree, where a relative link is a dead one."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = HeaderParser().parsestr(archive.read(name).decode())
    description = str(metadata.get_payload())
    links = re.findall(r"\]\(([^)]*)\)", description)
    assert links
    assert [link for link in links if not link.startswith(("https://", "#"))] == []
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])


@pytest.mark.parametrize(
    ("words", "begin"),
    [
        ("--version", "modelsplit "),
        ("print-unit", "# modelsplit as a system service."),
        ("print-unit --socket", "# "),
        ("print-policy", "{"),
        ("completion bash", "# AUTOMATICALLY GENERATED"),
        ("config show", "NAME "),
    ],
)
def test_what_is_installed_stands_alone(words: str, begin: str, installed: Installed) -> None:
    done = installed.run(*words.split())
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(begin)


def test_the_unit_starts_what_is_installed(installed: Installed) -> None:
    unit = installed.run("print-unit").stdout
    assert f"ExecStart={installed.prefix}/bin/modelsplit serve\n" in unit


async def test_a_call_through_what_is_installed_is_tagged(
    installed: Installed, tmp_path: Path
) -> None:
    elsewhere = {"PYTHONPATH": ""}
    async with (
        ollama() as (upstream, _),
        serving(
            upstream, tmp_path, patient=False, env=elsewhere, wrapper=installed.wrapper
        ) as process,
        process.client() as client,
        process.admin() as admin,
    ):
        body = {"model": "planner", "prompt": "What next?", "stream": False}
        answer = await client.request("POST", "/api/generate", body)
        assert (answer.status, dict(answer.headers)["X-LLM-Role"]) == (200, "PLANNER")
        page = await admin.request("GET", "/", headers={"Accept": "text/html"})
        assert b"[LLM OBSERVABILITY]" in page.body
        [call] = (await admin.request("GET", "/requests")).json
        assert call["llm_role"] == "PLANNER"


def test_what_is_uninstalled_leaves_nothing_behind(wheel: Path, tmp_path: Path) -> None:
    installed = wheels.install(wheel, tmp_path / "env")
    wheels.pip(installed, "uninstall", "--yes", "modelsplit")
    fresh = wheels.install(wheel, tmp_path / "other", nothing=True)
    assert files(installed.prefix) == files(fresh.prefix)
