"""docs/operations.md is complete: settings, log fields, metrics, admin routes, exit codes."""

from __future__ import annotations

import re
from pathlib import Path

from modelsplit_policy.health import SHEDDING, Level
from modelsplit_policy.vocabulary import Role
from modelsplit_proxy.cli import doctor
from modelsplit_proxy.cli.output import ExitCode
from modelsplit_proxy.config import key_file
from modelsplit_proxy.config.settings import OPTIONS
from modelsplit_proxy.protocol.request_headers import Asked
from modelsplit_proxy.records.record import Variant
from modelsplit_proxy.records.values import log_fields
from support.harness import running
from support.records import answered, turned_away

PAGE = (Path(__file__).parents[1] / "docs" / "operations.md").read_text(encoding="utf-8")


def rows(title: str) -> list[list[str]]:
    """The cells of every table row in one section, header and rule left out."""
    section = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return [row for row in cells if row[0] not in {"flag", "field", "metric", "route", "role"}]


def words(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_every_setting_is_described_with_its_variable_and_default() -> None:
    said = [(row[0], row[1], row[2]) for row in rows("Settings")]
    known = [
        (f"`{option.flag}`", f"`{option.variable}`", f"`{option.default}`" * bool(option.default))
        for option in OPTIONS
    ]
    assert said == known
    assert all(row[3] for row in rows("Settings"))


def test_every_field_of_a_log_line_is_described() -> None:
    said = [field for row in rows("Logs") for field in words(row[0])]
    assert len(said) == len(set(said))
    asked = Asked(max_wait_ms=1, timeout_ms=1, no_fallback=True, retry_level=1)
    tried = answered(variant=Variant("t", "a"), asked=asked, host="a")
    assert set(said) == {*log_fields(tried), *log_fields(turned_away())}


async def test_every_metric_is_described_with_its_labels() -> None:
    said = {words(row[0])[0]: set(row[1].replace(",", " ").split()) for row in rows("Metrics")}
    assert all(row[2] for row in rows("Metrics"))
    async with running() as up:
        families = list(up.app.metrics.registry.collect())
    names = {f.name + "_total" * (f.type == "counter") for f in families}
    assert set(said) == names
    for family in families:
        name = family.name + "_total" * (family.type == "counter")
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == said[name], name


async def test_every_admin_route_is_described() -> None:
    said = [word.partition("?")[0] for row in rows("Admin routes") for word in words(row[0])]
    async with running() as up:
        admin = up.app._admin_handler
        known = {*admin.routes, *admin.writes}
    assert sorted(said) == sorted(known)


def test_every_exit_code_is_described() -> None:
    said = {row[0] for row in rows("Exit codes")} - {"code"}
    assert said == {str(code.value) for code in ExitCode}


def test_the_example_of_a_file_of_keys_is_one_and_every_field_is_described(tmp_path: Path) -> None:
    section = PAGE.partition("\n## Keys for clients\n")[2].partition("\n## ")[0]
    (example,) = re.findall(r"```json\n(.*?)```", section, re.DOTALL)
    path = tmp_path / "keys.json"
    path.write_text(example)
    assert len(key_file.load(path, {}).keys) == 2
    said = [
        word for row in re.findall(r"^\| (`.+?) \|", section, re.MULTILINE) for word in words(row)
    ]
    assert sorted(said) == sorted(key_file.KeyEntry.model_fields)


def test_the_shedding_table_is_the_code() -> None:
    said = [row for row in rows("Health") if row[0] in set(Role)]
    assert said == [[role, *(SHEDDING[level, role] for level in Level)] for role in Role]


def test_what_happens_at_a_bound_is_said_of_each() -> None:
    section = PAGE.partition("\n### At the limit\n")[2].partition("\n## ")[0]
    said = {word for line in section.splitlines() for word in words(line) if word[:2] == "--"}
    bounds = ("timeout", "drain", "max-", "-memory", "keep-")
    assert said == {
        option.flag for option in OPTIONS if any(word in option.name for word in bounds)
    }


def test_everything_that_doctor_looks_at_is_described() -> None:
    said = [name for row in rows("Doctor") if row[0] != "looks at" for name in row[0].split(", ")]
    assert sorted(said) == sorted(check.name for check in doctor.CHECKS)
