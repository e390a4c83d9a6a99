"""What a request's handling is given."""

from __future__ import annotations

from dataclasses import MISSING, fields

from modelsplit_proxy.services import Services


def test_every_part_is_wired_but_the_keys_which_nobody_need_have() -> None:
    optional = {field.name for field in fields(Services) if field.default is not MISSING}
    assert optional == {"keyring"}
