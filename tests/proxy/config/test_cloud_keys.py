"""Where the key of a cloud is read, and whose file it must be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from modelsplit_policy.config.model import CloudPolicy, CloudProviderPolicy
from modelsplit_policy.verdict import Keyless
from modelsplit_proxy.config.cloud_keys import giving_key, keyless, read_key, read_keys
from modelsplit_proxy.config.settings import SettingError
from modelsplit_proxy.providers.key import ProviderKey

if TYPE_CHECKING:
    from pathlib import Path

KEY = "sk-ant-0123456789"


def row(**fields: Any) -> CloudProviderPolicy:
    return CloudProviderPolicy.model_validate({"models": {"claude-3-opus": None}} | fields)


def written(path: Path, text: str = f"{KEY}\n", mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_credential_comes_first_then_the_file_then_the_variable(tmp_path: Path) -> None:
    environ = {"ANTHROPIC_API_KEY": "sk-variable", "CREDENTIALS_DIRECTORY": str(tmp_path)}
    file = written(tmp_path / "key", "sk-file")
    assert read_key("a", row(), environ) == ProviderKey("sk-variable", "$ANTHROPIC_API_KEY")
    found = read_key("a", row(key_file=str(file)), environ)
    assert found == ProviderKey("sk-file", f"the file {file}")
    written(tmp_path / "modelsplit-cloud-a", mode=0o440)
    found = read_key("a", row(key_file=str(file)), environ)
    assert found == ProviderKey(KEY, "the credential modelsplit-cloud-a")


def test_a_missing_key_is_empty_and_says_where_it_would_be() -> None:
    assert read_key("a", row(key_env="MY_KEY"), {}) == ProviderKey("", "$MY_KEY")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = written(tmp_path / "key", mode=mode)
    with pytest.raises(SettingError, match="chmod 600") as refused:
        read_key("a", row(key_file=str(file)), {})
    assert KEY not in str(refused.value)


@pytest.mark.parametrize("text", ["two words", "", "ümlaut"])
def test_what_is_no_key_is_refused_without_being_shown(tmp_path: Path, text: str) -> None:
    file = written(tmp_path / "key", text)
    with pytest.raises(SettingError) as refused:
        read_key("a", row(key_file=str(file)), {})
    assert not text or text not in str(refused.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="No such file"):
        read_key("a", row(key_file=str(tmp_path / "none")), {})


def test_every_provider_has_an_entry() -> None:
    policy = CloudPolicy(providers={"a": row(), "b": row(key_env="B")})
    keys = read_keys(policy, {"B": "sk-b"})
    assert {name: key.text for name, key in keys.items()} == {"a": "", "b": "sk-b"}
    assert keyless(policy, keys, {}) == (
        Keyless(
            "a has no key, so none of its models can be asked: $ANTHROPIC_API_KEY is not set",
            "read -rs ANTHROPIC_API_KEY && export ANTHROPIC_API_KEY   "
            "# type it, then restart from here",
        ),
    )


def test_a_service_is_given_its_key_by_its_unit() -> None:
    step = giving_key("a", row(), {"NOTIFY_SOCKET": "/run/systemd/notify"})
    assert step == (
        "modelsplit print-unit --cloud   # LoadCredential=modelsplit-cloud-a: names a file"
    )
