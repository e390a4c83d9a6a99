"""From a file to a policy: which file, how it is read, how it extends the shipped one."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.config.problems import PolicyError
from modelsplit_policy.vocabulary import Role
from modelsplit_proxy.config import policy_file, shipped_files
from modelsplit_proxy.config.policy_file import (
    SHIPPED,
    PolicyFileError,
    digest,
    find_policy,
    load,
    merge,
    read_document,
    resolve,
    shipped,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model-policy.json"


def refusal(path: Path) -> list[str]:
    """The lines an operator reads, without the file's name, which each of them begins with."""
    with pytest.raises(PolicyFileError) as refused:
        load(path)
    prefix = f"{path}: "
    lines = str(refused.value).splitlines()
    assert all(line.startswith(prefix) for line in lines)
    return [line.removeprefix(prefix) for line in lines]


# --- The shipped policy -------------------------------------------------------------------


def test_without_a_file_the_shipped_policy_is_in_force() -> None:
    loaded = load(None)
    assert loaded.source == SHIPPED == "shipped default"
    assert set(loaded.policy.roles) == set(Role)


def test_an_installed_wheel_finds_the_shipped_policy_among_its_own_files(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(json.dumps(shipped() | {"load_timeout_ms": 7}))
    monkeypatch.setattr(shipped_files, "_DATA", file.parent)
    assert load(None).policy.load_timeout_ms == 7


def test_a_changed_copy_of_the_shipped_document_changes_nothing() -> None:
    shipped().clear()
    assert shipped()["version"] == 1


# --- Which file ---------------------------------------------------------------------------


def test_the_flag_beats_the_variable_beats_systemd_beats_etc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flag, named = tmp_path / "flag.json", tmp_path / "named.json"
    unit, etc = tmp_path / "unit" / "model-policy.json", tmp_path / "etc.json"
    unit.parent.mkdir()
    for path in (flag, named, unit, etc):
        path.touch()
    monkeypatch.setattr(policy_file, "ETC", etc)
    environ = {"MODELSPLIT_POLICY": str(named), "CONFIGURATION_DIRECTORY": str(unit.parent)}

    assert find_policy(flag, environ) == flag
    assert find_policy(None, environ) == named
    del environ["MODELSPLIT_POLICY"]
    assert find_policy(None, environ) == unit
    unit.unlink()
    assert find_policy(None, environ) == etc
    etc.unlink()
    assert find_policy(None, environ) is None


def test_systemd_may_name_several_directories(tmp_path: Path) -> None:
    file = tmp_path / "second" / "model-policy.json"
    file.parent.mkdir()
    file.touch()
    environ = {"CONFIGURATION_DIRECTORY": f"{tmp_path / 'first'}:{file.parent}"}
    assert find_policy(None, environ) == file


def test_etc_is_where_the_package_says() -> None:
    assert Path("/etc/modelsplit/model-policy.json") == policy_file.ETC


@pytest.mark.parametrize("by", ["--policy or $MODELSPLIT_POLICY", "$MODELSPLIT_POLICY"])
def test_a_named_file_that_is_not_there_is_an_error(file: Path, by: str) -> None:
    flag, environ = (file, {}) if by.startswith("--") else (None, {"MODELSPLIT_POLICY": str(file)})
    with pytest.raises(PolicyFileError) as refused:
        find_policy(flag, environ)
    assert str(refused.value) == (
        f"{file}: $: no such file, but {by} names it; create it or name another"
    )


def test_an_empty_variable_names_nothing(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setattr(policy_file, "ETC", file)
    assert find_policy(None, {"MODELSPLIT_POLICY": "", "CONFIGURATION_DIRECTORY": ""}) is None


def test_a_link_to_nowhere_is_reported_instead_of_the_shipped_policy_taking_over(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.symlink_to(file.parent / "gone")
    monkeypatch.setattr(policy_file, "ETC", file)
    found = find_policy(None, {})
    assert found == file
    assert refusal(found) == [f"$: cannot be read: No such file or directory: {file}"]


def test_a_place_that_cannot_be_looked_at_counts_as_found(tmp_path: Path) -> None:
    name_too_long = tmp_path / ("x" * 5_000)
    assert find_policy(name_too_long, {}) == name_too_long
    assert refusal(name_too_long) == ["$: cannot be read: File name too long"]


# --- What cannot be read --------------------------------------------------------------------


def test_a_directory_is_no_policy(tmp_path: Path) -> None:
    assert refusal(tmp_path) == ["$: cannot be read: Is a directory"]


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"", "$: is not JSON: Expecting value at line 1, column 1"),
        (b'{\n  "version": 1,\n}', "$: is not JSON: "),
        (b'{\n  "version": }', "$: is not JSON: Expecting value at line 2, column 14"),
        (b'{\n"a": "\xff"}', "$: is not UTF-8 (byte 8, line 2); save it as UTF-8"),
        (b"[]", "$: must be a JSON object, not a list"),
        (b'"x"', "$: must be a JSON object, not a string"),
        (b"null", "$: must be a JSON object, not null"),
        (b"7", "$: must be a JSON object, not a number"),
        (b'{"a": NaN}', "$: is not JSON: NaN is not a number JSON knows"),
        (b'{"a": -Infinity}', "$: is not JSON: -Infinity is not a number JSON knows"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "$: is not JSON: a number of 5000 digits"),
        (b"[" * 100_000, "$: is nested too deeply to be a policy"),
        (b'{"a":' * 200 + b"1" + b"}" * 200, "$.a.a: is nested too deeply to be a policy"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_not_a_json_object_is_refused_with_the_place(
    file: Path, data: bytes, line: str
) -> None:
    file.write_bytes(data)
    (said,) = refusal(file)
    assert said.startswith(line)


def test_a_key_written_twice_is_an_operators_slip_and_every_one_is_named(file: Path) -> None:
    file.write_text(
        """{"extends": "default",
            "load_timeout_ms": 1, "load_timeout_ms": 2, "load_timeout_ms": 3,
            "models": {"a:b": {"options": {"num_ctx": 1, "num_ctx": 2}}},
            "budgets": [{"name": "x", "name": "y"}]}"""
    )
    assert refusal(file) == [
        "$.load_timeout_ms: is written more than once; keep one of them",
        '$.models["a:b"].options.num_ctx: is written more than once; keep one of them',
        "$.budgets[0].name: is written more than once; keep one of them",
    ]


def test_a_byte_order_mark_is_read_over(file: Path) -> None:
    file.write_text(json.dumps({"extends": "default"}), encoding="utf-8-sig")
    assert load(file).policy == load(None).policy


@given(data=st.binary(max_size=60))
def test_any_bytes_are_a_document_or_a_policy_error(data: bytes) -> None:
    try:
        assert isinstance(read_document(data), dict)
    except PolicyError as refused:
        lines = str(refused).splitlines()
        assert lines, "an error that says nothing"


# --- Whole files and overlays -----------------------------------------------------------------


def test_a_file_without_extends_is_the_whole_policy(file: Path) -> None:
    whole = shipped()
    del whole["roles"]["HEAVY"], whole["global"]
    file.write_text(json.dumps(whole))
    assert refusal(file) == [
        '$.global: missing; add it, or put "extends": "default" in the file',
        '$.roles.HEAVY: missing; add it, or put "extends": "default" in the file',
    ]


def test_an_overlay_changes_what_it_names_and_nothing_else(file: Path) -> None:
    file.write_text(
        """{"extends": "default",
            "global": {"max_concurrent": 4},
            "roles": {"HEAVY": {"primary": "qwen3:32b", "aliases": ["heavy", "big"]}},
            "models": {"qwen3:32b": {"options": {"num_ctx": 8192}}},
            "budgets": []}"""
    )
    loaded, default = load(file), load(None)
    assert loaded.source == str(file)
    heavy = loaded.policy.roles[Role.HEAVY]
    assert (heavy.primary, heavy.fallback) == ("qwen3:32b", "gpt-oss:20b")
    assert heavy.aliases == ("heavy", "big")
    assert loaded.policy.roles[Role.PLANNER] == default.policy.roles[Role.PLANNER]
    assert set(loaded.policy.models) == {*default.policy.models, "qwen3:32b"}
    assert loaded.policy.budgets == ()
    assert loaded.policy.global_.max_concurrent == 4


def test_the_faults_of_an_overlay_are_all_told_with_the_files_name(file: Path) -> None:
    file.write_text(
        """{"extends": "default", "global": {"max_concurent": 4},
            "roles": {"CHAT": {"max_wait_ms": 1}, "PLANNER": {"reserved": 3}}}"""
    )
    assert refusal(file) == [
        '$.global.max_concurent: unknown key; did you mean "max_concurrent"?',
        (
            "$.roles.CHAT.max_wait_ms: must be 5000 to 10000 milliseconds, not 1,"
            ' or set "allow_long_wait": true'
        ),
        ("$.roles.PLANNER.reserved: is 3, more than this role's max_concurrent (2); lower it"),
    ]


@pytest.mark.parametrize("base", ["defualt", None, True, {}])
def test_only_the_default_can_be_extended(file: Path, base: object) -> None:
    file.write_text(json.dumps({"extends": base}))
    (line,) = refusal(file)
    assert line.startswith('$.extends: must be "default"')
    assert line.endswith(json.dumps(base))


@pytest.mark.parametrize(
    ("first", "told"),
    [
        ('"extends": "defualt"', '$.extends: must be "default", '),
        ('"extnds": "default"', '$.extnds: unknown key; did you mean "extends"?'),
        ('"base": "default"', '$.base: unknown key; did you mean "extends"?'),
    ],
)
def test_a_slip_in_extends_hides_nothing_else(first: str, told: str, file: Path) -> None:
    """A rule between a key of the file and one of the policy that it means to extend is held."""
    file.write_text(f"""{{{first}, "roles": {{"PLANNER": {{"reserved": 3, "cap": 2}}}}}}""")
    about_extends, cap, reserved = refusal(file)
    assert about_extends.startswith(told)
    assert cap == '$.roles.PLANNER.cap: unknown key; did you mean "max_concurrent"?'
    assert reserved.startswith("$.roles.PLANNER.reserved: is 3, more than this role's")


# --- Merging ------------------------------------------------------------------------------

# A policy file may hold numbers of thirty digits at most.
NUMBERS = st.integers(-(10**29), 10**29)

DOCUMENTS: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.dictionaries(st.sampled_from("abc"), st.none() | NUMBERS | st.lists(NUMBERS)),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner | NUMBERS),
    max_leaves=8,
)


@given(base=DOCUMENTS)
def test_merging_with_nothing_or_with_itself_changes_nothing(base: dict[str, Any]) -> None:
    assert merge(base, {}) == base
    assert merge({}, base) == base
    assert merge(base, base) == base


@given(base=DOCUMENTS, over=DOCUMENTS)
def test_merging_twice_is_merging_once(base: dict[str, Any], over: dict[str, Any]) -> None:
    once = merge(base, over)
    assert merge(once, over) == once


@given(base=DOCUMENTS, over=DOCUMENTS)
def test_each_key_comes_from_the_overlay_where_it_has_one(
    base: dict[str, Any], over: dict[str, Any]
) -> None:
    before = json.dumps([base, over])
    merged = merge(base, over)
    assert json.dumps([base, over]) == before
    assert set(merged) == {*base, *over}
    for key, value in merged.items():
        if key not in over:
            assert value == base[key]
        elif isinstance(over[key], dict) and isinstance(base.get(key), dict):
            assert value == merge(base[key], over[key])
        else:
            assert value == over[key]


@given(over=DOCUMENTS)
def test_a_file_that_extends_is_the_shipped_document_with_the_file_over_it(
    over: dict[str, Any],
) -> None:
    file = json.dumps({"extends": "default"} | over).encode()
    assert resolve(file) == merge(shipped(), over)


# --- Digest -------------------------------------------------------------------------------


def test_the_digest_names_the_merged_document(file: Path) -> None:
    meant = {key: value for key, value in shipped().items() if key != "$schema"}
    canonical = json.dumps(meant, sort_keys=True, separators=(",", ":")).encode()
    loaded = load(None)
    assert loaded.digest == sha256(canonical).hexdigest()
    assert loaded.short_digest == loaded.digest[:12]

    file.write_text('{"$schema": "elsewhere.json", "extends": "default"}')
    assert load(file).digest == loaded.digest
    file.write_text(json.dumps(dict(reversed(shipped().items())), indent=4))
    assert load(file).digest == loaded.digest
    file.write_text('{"extends": "default", "load_timeout_ms": 120001}')
    assert load(file).digest != loaded.digest


@given(document=DOCUMENTS, other=DOCUMENTS)
def test_two_documents_share_a_digest_only_if_they_are_equal(
    document: dict[str, Any], other: dict[str, Any]
) -> None:
    assert (digest(document) == digest(other)) is (document == other)


def test_a_digest_can_be_made_of_text_that_is_not_unicode() -> None:
    assert len(digest(read_document(b'{"a": "\\ud800"}'))) == 64
