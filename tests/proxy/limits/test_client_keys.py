"""Whose key a request carries, and what it is good for."""

from __future__ import annotations

import hmac

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from modelsplit_policy.config.model import ClientsPolicy
from modelsplit_policy.failures import Failure, Reason
from modelsplit_policy.vocabulary import Role
from modelsplit_proxy.limits.client_keys import (
    ANYBODY,
    Caller,
    Key,
    Keyring,
    digest_of,
    open_to_all,
)

LAPTOP = "ms-the-key-of-the-laptop"
BATCH = "ms-the-key-of-the-batch"
RING = Keyring(
    [
        Key("laptop", digest_of(LAPTOP), frozenset(Role), manage_models=True),
        Key("batch", digest_of(BATCH), frozenset({Role.HEAVY, Role.CHAT}), limits={"burst": 9}),
    ]
)


def sent(*lines: tuple[str, str]) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict(lines))


def told(*lines: tuple[str, str]) -> tuple[str, set[bytes]]:
    """The caller's name and the headers that stop here, or the reason of the refusal."""
    caller = RING.caller(sent(*lines))
    if isinstance(caller, Failure):
        return caller.reason, set()
    assert caller.key is not None
    return caller.key.name, set(caller.consumed)


# --- Which key ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Authorization", f"Bearer {LAPTOP}"),
        ("authorization", f"bearer   {LAPTOP} "),
        ("X-Api-Key", LAPTOP),
    ],
)
def test_a_key_is_known_by_either_header(header: str, value: str) -> None:
    assert told((header, value)) == ("laptop", {header.lower().encode()})


@pytest.mark.parametrize(
    "lines",
    [
        (),
        (("Authorization", ""),),
        (("Authorization", "Bearer "),),
        (("Authorization", f"Basic {LAPTOP}"),),
        (("x-api-key", " "),),
        (("Cookie", LAPTOP),),
    ],
)
def test_without_a_key_that_is_said(lines: tuple[tuple[str, str], ...]) -> None:
    assert told(*lines) == (Reason.NO_KEY, set())


@pytest.mark.parametrize(
    "secret",
    ["unused", LAPTOP[:-1], f"{LAPTOP}x", LAPTOP.upper(), "\udcff\udcfe" * 9, "x" * 100_000],
)
def test_any_other_key_is_wrong(secret: str) -> None:
    assert told(("Authorization", f"Bearer {secret}")) == (Reason.WRONG_KEY, set())
    assert told(("x-api-key", secret)) == (Reason.WRONG_KEY, set())


def test_a_header_that_is_not_ours_is_left_to_ollama() -> None:
    theirs = ("Authorization", "Bearer of-the-cloud-behind-ollama")
    assert told(theirs, ("x-api-key", BATCH)) == ("batch", {b"x-api-key"})


def test_of_two_keys_the_bearer_speaks_and_both_stop_here() -> None:
    lines = (("x-api-key", BATCH), ("Authorization", f"Bearer {LAPTOP}"))
    assert told(*lines) == ("laptop", {b"x-api-key", b"authorization"})


def test_every_key_is_compared_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    compare = hmac.compare_digest

    def noted(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return compare(a, b)

    monkeypatch.setattr(hmac, "compare_digest", noted)
    for secret in (LAPTOP, BATCH, "unknown"):
        compared.clear()
        RING.caller(sent(("x-api-key", secret)))
        assert compared == [(key.digest, digest_of(secret)) for key in RING.keys]


def test_a_key_cannot_be_read_from_what_is_shown_of_it() -> None:
    shown = repr(RING.caller(sent(("x-api-key", LAPTOP))))
    assert "laptop" in shown
    assert LAPTOP not in shown
    assert digest_of(LAPTOP).hex() not in shown


# --- What it is good for ------------------------------------------------------------------------


def caller(secret: str) -> Caller:
    found = RING.caller(sent(("x-api-key", secret)))
    assert isinstance(found, Caller)
    return found


def test_a_role_that_the_key_is_not_for() -> None:
    assert [role for role in Role if caller(BATCH).denied_role(role) is None] == [
        Role.HEAVY,
        Role.CHAT,
    ]
    denied = caller(BATCH).denied_role(Role.PLANNER)
    assert denied is not None
    assert (denied.status, denied.reason) == (403, "role_denied")
    assert denied.message == (
        'key "batch" is not for role PLANNER, only for CHAT, HEAVY; ask for another key'
    )


def test_changing_models_is_a_right_of_its_own() -> None:
    assert caller(LAPTOP).denied_management(manages=True) is None
    assert caller(BATCH).denied_management(manages=False) is None
    denied = caller(BATCH).denied_management(manages=True)
    assert denied is not None
    assert (denied.status, denied.reason) == (403, "management_denied")


def test_without_keys_anybody_may_do_anything() -> None:
    assert all(ANYBODY.denied_role(role) is None for role in Role)
    assert ANYBODY.denied_management(manages=True) is None
    assert ANYBODY.consumed == frozenset()


def test_every_sentence_fits_with_the_longest_name() -> None:
    key = Key("n" * 64, digest_of("x"), frozenset(Role) - {Role.CLOUD})
    for denied in (
        Caller(key).denied_role(Role.CLOUD),
        Caller(key).denied_management(manages=True),
        RING.caller(sent()),
        RING.caller(sent(("x-api-key", "x"))),
    ):
        assert isinstance(denied, Failure)
        assert len(denied.message) <= 200


def test_what_a_key_leaves_open_is_as_for_all() -> None:
    common = ClientsPolicy(rate_per_s=2.0, burst=3, max_concurrent=4)
    limits = RING.limits(common)
    assert limits["laptop"] == common
    assert limits["batch"] == ClientsPolicy(rate_per_s=2.0, burst=9, max_concurrent=4)


# --- What needs none ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "target", "is_open"),
    [
        ("HEAD", "/", True),
        ("GET", "/", True),
        ("GET", "/?x", True),
        ("POST", "/", False),
        ("GET", "//", False),
        ("GET", "/api/version", False),
        ("GET", "/api/tags", False),
        ("OPTIONS", "/api/chat", False),
    ],
)
def test_a_look_whether_anybody_is_there(method: str, target: str, *, is_open: bool) -> None:
    assert open_to_all(method, target) is is_open
