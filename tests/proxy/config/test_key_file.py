"""From a file to the keys of clients: which file, how it is read, everything wrong with it."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from modelsplit_policy.vocabulary import Role
from modelsplit_proxy.config.key_file import load
from modelsplit_proxy.config.policy_file import PolicyFileError

SECRET = "ms-0123456789abcdef"
DIGEST = sha256(SECRET.encode()).hexdigest()
OTHER = sha256(b"another").hexdigest()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def written(file: Path, *entries: Any, mode: int = 0o600, **top: Any) -> Path:
    file.write_text(json.dumps({"version": 1, "keys": list(entries), **top}))
    file.chmod(mode)
    return file


def refusal(path: Path, **environ: str) -> list[str]:
    """The lines an operator reads, without the file's name, which each of them begins with."""
    with pytest.raises(PolicyFileError) as refused:
        load(path, environ)
    lines = str(refused.value).splitlines()
    assert all(line.startswith(f"{path}: ") for line in lines)
    return [line.removeprefix(f"{path}: ") for line in lines]


# --- What a file says ---------------------------------------------------------------------------


def test_a_key_by_its_digest_may_do_what_all_may(file: Path) -> None:
    (key,) = load(written(file, {"name": "laptop", "sha256": DIGEST}), {}).keys
    assert (key.name, key.digest.hex()) == ("laptop", DIGEST)
    assert key.roles == frozenset(Role)
    assert not key.manage_models
    assert key.limits == {}


def test_a_key_in_plain_is_kept_as_its_digest(file: Path) -> None:
    keyring = load(written(file, {"name": "laptop", "key": SECRET}), {})
    assert keyring.source == str(file)
    assert keyring.keys[0].digest.hex() == DIGEST


def test_everything_a_key_can_say(file: Path) -> None:
    entry = {
        "name": "batch",
        "sha256": DIGEST.upper(),
        "roles": ["HEAVY", "CHAT"],
        "rate_per_s": None,
        "burst": 5,
        "max_concurrent": 2,
        "manage_models": True,
    }
    (key,) = load(written(file, entry), {}).keys
    assert key.digest.hex() == DIGEST
    assert key.roles == {Role.HEAVY, Role.CHAT}
    assert key.manage_models
    # Null is said, and is not the same as nothing said: it lifts the policy's limit.
    assert key.limits == {"rate_per_s": None, "burst": 5, "max_concurrent": 2}


# --- What is wrong with it ----------------------------------------------------------------------


def test_everything_at_once_and_no_secret_among_it(file: Path) -> None:
    entries: list[Any] = [
        {"name": "a b", "key": "short"},
        {"name": "a", "sha256": SECRET},
        {"nmae": "a", "sha256": DIGEST},
        {"name": "b", "key": SECRET, "sha256": DIGEST},
        {"name": "c"},
        {"name": "d", "sha256": OTHER, "roles": []},
        {"name": "d", "sha256": OTHER.upper(), "roles": ["Chat"], "burst": 0},
        {"name": "e", "key": 1234567890123456},
        SECRET,
    ]
    lines = refusal(written(file, *entries, version=2))
    assert SECRET not in "".join(lines)
    assert lines == [
        "$.keys[0].key: must be 16 to 256 ASCII characters without spaces",
        '$.keys[0].name: must be 1 to 64 letters, digits or . _ -, not "a b"',
        "$.keys[1].sha256: must be 64 hex digits: the SHA-256 of the key",
        '$.keys[2].nmae: unknown key; did you mean "name"?',
        '$.keys[3]: must have either "sha256" or "key"',
        '$.keys[4]: must have either "sha256" or "key"',
        "$.keys[5].roles: must not be empty; leave it out for all roles",
        "$.keys[6].burst: must be at least 1, not 0",
        '$.keys[6].roles[0]: must be "PLANNER", "EXECUTOR", "HEAVY", "CLOUD" or "CHAT", not "Chat"',
        "$.keys[7].key: must be 16 to 256 ASCII characters without spaces",
        '$.keys[8]: must be an object with "name" and "sha256"',
        "$.version: must be 1, not 2",
    ]


def test_two_names_and_two_keys_that_are_the_same(file: Path) -> None:
    entries = [
        {"name": "a", "sha256": DIGEST},
        {"name": "a", "sha256": OTHER},
        {"name": "b", "key": SECRET},
    ]
    assert refusal(written(file, *entries)) == [
        "$.keys[1].name: is also the name at $.keys[0]; rename one",
        "$.keys[2]: is the same key as $.keys[0]; every client has its own",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "{",
            "$: is not JSON: Expecting property name enclosed in double quotes at line 1, column 2",
        ),
        ("[]", "$: must be a JSON object, not a list"),
        ('{"version":1,"keys":[]}', "$.keys: must not be empty: nobody could call"),
        ('{"version":1,"keys":{}}', "$.keys: must be a list of objects"),
        ('{"version":1}', "$.keys: missing; add it"),
        (
            '{"version":true,"keys":[],"keys":[]}',
            "$.keys: is written more than once; keep one of them",
        ),
    ],
)
def test_a_file_that_is_none(file: Path, text: str, line: str) -> None:
    file.write_text(text)
    assert refusal(file) == [line]


# --- Who may read it ----------------------------------------------------------------------------

EXPOSED = (
    "$: holds keys, and others may read it; chmod 600 it, or give each key's sha256 in place of it"
)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_keys_that_others_may_read_are_refused(file: Path, mode: int) -> None:
    assert refusal(written(file, {"name": "a", "key": SECRET}, mode=mode)) == [EXPOSED]
    problems = refusal(written(file, {"name": "a", "key": SECRET}, mode=mode, version=2))
    assert problems == [EXPOSED, "$.version: must be 1, not 2"]


def test_digests_are_no_secret(file: Path) -> None:
    assert load(written(file, {"name": "a", "sha256": DIGEST}, mode=0o644), {}).keys


def test_a_credential_of_systemds_is_guarded_by_systemd(file: Path) -> None:
    path = written(file, {"name": "a", "key": SECRET}, mode=0o440)
    assert load(path, {"CREDENTIALS_DIRECTORY": str(file.parent)}).keys
    assert refusal(path, CREDENTIALS_DIRECTORY="/elsewhere") == [EXPOSED]


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (line,) = refusal(tmp_path)
    assert line == "$: cannot be read: Is a directory"
