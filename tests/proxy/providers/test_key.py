"""A key is shown to nobody."""

from __future__ import annotations

from modelsplit_proxy.providers.key import ProviderKey


def test_a_key_is_not_in_what_describes_it() -> None:
    assert repr(ProviderKey("sk-secret", "$K")) == "ProviderKey(source='$K')"
