"""Flag, then environment, then default; and what an operator reads when a value is no good."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_proxy.config.settings import (
    OPTIONS,
    Address,
    SettingError,
    Settings,
    read_settings,
    unknown_variables,
    unused_upstream,
)


def read(environ: dict[str, str] | None = None, **flags: Any) -> Settings:
    """Settings from flags by keyword, ``stall_timeout`` for ``--stall-timeout``."""
    given = {name.replace("_", "-"): value for name, value in flags.items()}
    return read_settings(given, environ or {"HOME": "/home/me"})


def refusal(environ: dict[str, str] | None = None, **flags: Any) -> str:
    with pytest.raises(SettingError) as refused:
        read(environ, **flags)
    return str(refused.value)


# --- Where values come from -------------------------------------------------------------------


def test_without_a_word_the_defaults_are_the_contracts() -> None:
    assert read() == Settings(
        listen=Address("127.0.0.1", 11435),
        admin=Address("127.0.0.1", 11436),
        upstream=Address("127.0.0.1", 11434),
        policy=None,
        keys=None,
        state=Path("/home/me/.local/state/modelsplit"),
        client_header_timeout_s=10.0,
        client_body_timeout_s=30.0,
        client_send_timeout_s=300.0,
        connect_timeout_s=2.0,
        stall_timeout_s=60.0,
        drain_s=30.0,
        max_body_bytes=64 * 2**20,
        request_memory_bytes=128 * 2**20,
        max_connections=2048,
        keep_records_s=30 * 86400.0,
        max_records_bytes=2**30,
        log_format="auto",
        allow_hosts=(),
        allow_origins=(),
        take_over=False,
    )


def test_the_environment_beats_the_default_and_the_flag_beats_both() -> None:
    environ = {"MODELSPLIT_LISTEN": "127.0.0.1:1", "MODELSPLIT_DRAIN": "1s"}
    settings = read(environ, listen="127.0.0.1:2")
    assert (settings.listen.port, settings.drain_s) == (2, 1.0)


@pytest.mark.parametrize(
    ("said", "expected"),
    [("yes", True), ("TRUE", True), ("1", True), ("on", True), ("no", False), ("0", False)],
)
def test_a_switch_is_yes_or_no(said: str, *, expected: bool) -> None:
    assert read({"MODELSPLIT_TAKE_OVER": said}).take_over is expected
    assert read({"MODELSPLIT_TAKE_OVER": said}, take_over="yes").take_over is True


@pytest.mark.parametrize(
    ("said", "takes_traces"),
    [
        ("", ""),
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"),
        ("https://otel.example/otlp", "https://otel.example/otlp/v1/traces"),
        ("https://otel.example/v1/traces", "https://otel.example/v1/traces"),
        ("http://[::1]:4318", "http://[::1]:4318/v1/traces"),
    ],
)
def test_a_collector_is_a_url_with_or_without_the_path_of_traces(
    said: str, takes_traces: str
) -> None:
    assert read(otlp_endpoint=said).otlp_endpoint == takes_traces


@pytest.mark.parametrize(
    "said",
    [
        *("127.0.0.1:4318", "grpc://127.0.0.1:4317", "http://", "http://h:99999", "http://h:0"),
        *("http://u:p@h", "http://h?x=1", "http://h#x", "http://[::1"),
    ],
)
def test_what_is_no_collector_is_named(said: str) -> None:
    words = refusal({"MODELSPLIT_OTLP_ENDPOINT": said})
    assert words.startswith(f'--otlp-endpoint "{said}" is not a URL of http or https')


def test_the_agent_has_an_address_of_its_own() -> None:
    assert read({}).agent is None
    assert str(read(agent="0.0.0.0:11437").agent) == "0.0.0.0:11437"
    assert refusal({}, agent="127.0.0.1:11435") == (
        "--agent 127.0.0.1:11435 is taken by another address of ours"
    )
    assert refusal({}, agent="11437") == '--agent "11437" is not HOST:PORT, as in 127.0.0.1:11437'


@pytest.mark.parametrize(
    "said",
    ["redis://h:6379/0", "rediss://user:secret@h", "unix:///run/redis/redis.sock", ""],
)
def test_a_redis_is_a_url_and_its_password_is_not_shown(said: str) -> None:
    settings = read(shared=said)
    assert settings.shared == said
    assert "secret" not in repr(settings)


@pytest.mark.parametrize("said", ["h:6379", "http://h", "redis://", "redis://h:99999", "unix://"])
def test_what_is_no_redis_is_refused_without_repeating_it(said: str) -> None:
    assert refusal({"MODELSPLIT_SHARED": said}).startswith("--shared is not the URL of a Redis")


def test_the_prefix_of_keys_is_a_plain_name() -> None:
    assert read(shared_prefix="team-a").shared_prefix == "team-a"
    assert refusal(shared_prefix="a b") == (
        '--shared-prefix "a b" is not a name of letters, digits and "-_.:"'
    )


def test_a_switch_that_is_neither_is_named() -> None:
    assert refusal({"MODELSPLIT_TAKE_OVER": "maybe"}) == '--take-over "maybe" is neither yes nor no'


def test_an_empty_variable_is_as_good_as_none() -> None:
    environ = {"MODELSPLIT_LISTEN": "", "MODELSPLIT_ALLOW_HOST": "", "HOME": "/home/me"}
    assert read(environ) == read()


def test_repeated_flags_add_up_and_a_variable_is_a_list() -> None:
    environ = {"MODELSPLIT_ALLOW_HOST": "a.lan, b.lan,", "MODELSPLIT_ALLOW_ORIGIN": "x"}
    assert read(environ).allow_hosts == ("a.lan", "b.lan")
    assert read(environ, allow_host=["c.lan", "d.lan"]).allow_hosts == ("c.lan", "d.lan")
    assert read(environ, allow_host=["c.lan"]).allow_origins == ("x",)


def test_trusted_proxies_are_addresses_and_networks() -> None:
    settings = read({"MODELSPLIT_TRUST_PROXY": "127.0.0.1, 10.0.0.3/8"})
    assert [str(network) for network in settings.trust_proxies] == ["127.0.0.1/32", "10.0.0.0/8"]
    with pytest.raises(SettingError, match=r'--trust-proxy "web.lan" is no address and no network'):
        read({}, trust_proxy=["web.lan"])


def test_ollamas_own_variable_is_never_read() -> None:
    assert read({"OLLAMA_HOST": "10.0.0.7:1", "HOME": "/home/me"}) == read()


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_every_setting_has_a_flag_and_a_variable_of_one_name(option: Any) -> None:
    assert option.flag == f"--{option.name}"
    assert option.variable == "MODELSPLIT_" + option.name.upper().replace("-", "_")
    assert option.help


@pytest.mark.parametrize(
    ("environ", "state"),
    [
        ({"STATE_DIRECTORY": "/var/lib/modelsplit"}, "/var/lib/modelsplit"),
        ({"STATE_DIRECTORY": "/var/lib/a:/var/lib/b", "HOME": "/h"}, "/var/lib/a"),
        ({"XDG_STATE_HOME": "/h/state", "HOME": "/h"}, "/h/state/modelsplit"),
        ({"HOME": "/h"}, "/h/.local/state/modelsplit"),
        ({"MODELSPLIT_STATE": "/s", "STATE_DIRECTORY": "/var/lib/modelsplit"}, "/s"),
    ],
)
def test_state_lies_where_the_system_says(environ: dict[str, str], state: str) -> None:
    assert read(environ).state == Path(state)


# --- Values -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "address"),
    [
        ("0.0.0.0:80", Address("0.0.0.0", 80)),
        ("[::1]:11500", Address("::1", 11500)),
        ("localhost:0", Address("localhost", 0)),
        # As it is printed at the start.
        ("http://127.0.0.1:11500", Address("127.0.0.1", 11500)),
        ("http://[::1]:11500/", Address("::1", 11500)),
        (":11500", Address("127.0.0.1", 11500)),  # never all interfaces by an omission
    ],
)
def test_an_address_is_host_and_port(said: str, address: Address) -> None:
    assert read(listen=said).listen == address


def test_an_ipv6_address_is_shown_in_brackets() -> None:
    assert str(Address("::1", 11435)) == "[::1]:11435"
    assert str(Address("127.0.0.1", 11435)) == "127.0.0.1:11435"


@pytest.mark.parametrize(
    "said",
    ["11435", "localhost", "localhost:", "h:65536", "h:-1", "h:1x", "h:\u0661", "h:" + "9" * 9999],
)
def test_an_address_without_a_port_is_refused(said: str) -> None:
    assert refusal(listen=said) == f'--listen "{said}" is not HOST:PORT, as in 127.0.0.1:11435'
    assert refusal(admin=said) == f'--admin "{said}" is not HOST:PORT, as in 127.0.0.1:11436'


@pytest.mark.parametrize(
    ("said", "address"),
    [
        ("http://10.0.0.7:11434", Address("10.0.0.7", 11434)),
        ("http://gpu.lan", Address("gpu.lan", 11434)),
        ("gpu.lan:8080", Address("gpu.lan", 8080)),
        ("http://[fd00::1]:1/", Address("fd00::1", 1)),
        ("HTTP://gpu.lan:2", Address("gpu.lan", 2)),
    ],
)
def test_the_upstream_is_an_http_url(said: str, address: Address) -> None:
    assert read(upstream=said).upstream == address


@pytest.mark.parametrize(
    "said",
    [
        "https://gpu.lan",
        "http://gpu.lan/ollama",
        "http://",
        "http://h:99999",
        "http://[::1",
        "unix:/s",
    ],
)
def test_another_kind_of_upstream_is_refused(said: str) -> None:
    assert refusal(upstream=said).startswith(f'--upstream "{said}" is not an http URL')


def test_the_proxy_is_not_its_own_upstream() -> None:
    message = refusal(listen="127.0.0.1:11434")
    assert message == (
        "--upstream 127.0.0.1:11434 is our own --listen address; every call would come back to us"
    )


def test_each_listener_has_an_address_of_its_own() -> None:
    message = refusal(listen="127.0.0.1:7000", admin="127.0.0.1:7000")
    assert message == "--admin 127.0.0.1:7000 is the --listen address too; give it its own"
    assert read(listen="127.0.0.1:0", admin="127.0.0.1:0").admin.port == 0


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("500ms", 0.5), ("10s", 10.0), ("2m", 120.0), ("1h", 3600.0), ("1.5s", 1.5), ("7", 7.0)],
)
def test_durations_have_units(said: str, seconds: float) -> None:
    assert read(stall_timeout=said).stall_timeout_s == seconds


@pytest.mark.parametrize("said", ["-1s", "1 s", "s", "1w", "1e3s", ".5s", "inf", "nan", "9" * 400])
def test_what_is_no_duration_is_refused(said: str) -> None:
    message = refusal(drain=said)
    assert message == f'--drain "{said}" is not a duration, as in 500ms, 10s, 2m or 30d'


@pytest.mark.parametrize(("said", "size"), [("0", 0), ("512KiB", 524288), ("1GiB", 2**30)])
def test_sizes_have_units(said: str, size: int) -> None:
    assert read(max_body=said).max_body_bytes == size


@pytest.mark.parametrize("said", ["64MB", "-1", "1.5MiB", "1 MiB", "9" * 5000])
def test_what_is_no_size_is_refused(said: str) -> None:
    assert refusal(max_body=said).endswith("is not a size, as in 512KiB, 64MiB or 1GiB")


def test_an_unknown_log_format_is_refused() -> None:
    message = refusal({"MODELSPLIT_LOG_FORMAT": "xml"})
    assert message == '--log-format "xml" is unknown; use json, text or auto'


@given(
    name=st.sampled_from([option.name for option in OPTIONS]),
    said=st.text(st.characters(), max_size=20),
)
def test_any_text_is_a_setting_or_a_setting_error(name: str, said: str) -> None:
    try:
        settings = read_settings({name: said}, {})
    except SettingError as refused:
        message = str(refused)
    else:
        message = "--"
        assert isinstance(settings, Settings)
    assert message.startswith("--")


@pytest.mark.parametrize("name", ["keep-records", "drain", "stall-timeout"])
def test_no_time_is_longer_than_can_be_counted(name: str) -> None:
    said: dict[str, Any] = {name: "999999999d"}
    assert refusal(**said) == f'--{name} "999999999d" is longer than 285 years'
    said = {name: "100000d"}
    read(**said)


def test_no_size_is_larger_than_can_be_counted() -> None:
    said: dict[str, Any] = {"max-body": "8388608GiB"}
    assert refusal(**said) == '--max-body "8388608GiB" is more than 8388607GiB'
    said = {"max-body": "8388607GiB"}
    assert read(**said).max_body_bytes == 8388607 * 2**30


@pytest.mark.parametrize("said", ["0", "-1", "x", "1.5", "1000000", ""])
def test_a_number_of_connections_is_one(said: str) -> None:
    if said:
        text = refusal({"MODELSPLIT_MAX_CONNECTIONS": said})
        assert text == f'--max-connections "{said}" is not a number from 1 to 999999'
    assert read({"MODELSPLIT_MAX_CONNECTIONS": "7"}).max_connections == 7


def test_everything_that_cannot_be_read_is_told_at_once() -> None:
    told = refusal(listen="nowhere", drain="soon", log_format="xml")
    assert told.splitlines() == [
        '--listen "nowhere" is not HOST:PORT, as in 127.0.0.1:11435',
        '--drain "soon" is not a duration, as in 500ms, 10s, 2m or 30d',
        '--log-format "xml" is unknown; use json, text or auto',
    ]


def test_a_variable_that_is_no_setting_is_told_with_the_one_that_was_meant() -> None:
    environ = {
        "MODELSPLIT_LISTEN": "127.0.0.1:1",
        "MODELSPLIT_LISTENS": "x",
        "MODELSPLIT_PORT": "1",
        "MODELSPLIT_URL": "http://127.0.0.1:11435",
        "MODELSPIT_ADMIN": "127.0.0.1:2",
        "MODEL_SPLIT_POLICY": "p.json",
        "modelsplit_state": "/s",
        "MODEL_PATH": "/models",
        "PATH": "/bin",
        "OLLAMA_HOST": "h",
    }
    assert unknown_variables(environ) == [
        "MODELSPIT_ADMIN is no setting of ours; is it MODELSPLIT_ADMIN?",
        "MODELSPLIT_LISTENS is no setting of ours; is it MODELSPLIT_LISTEN?",
        "MODELSPLIT_PORT is no setting of ours; see `modelsplit serve --help`",
        "MODEL_SPLIT_POLICY is no setting of ours; is it MODELSPLIT_POLICY?",
        "modelsplit_state is no setting of ours; is it MODELSPLIT_STATE?",
    ]


def test_an_upstream_that_a_policy_with_hosts_does_not_ask_is_told() -> None:
    hosts = {"a": "http://10.0.0.1:11434", "b": "http://10.0.0.2"}
    assert unused_upstream(Address("10.0.0.9", 11434), hosts) == (
        "--upstream http://10.0.0.9:11434 is not asked: the policy has hosts (a, b), and calls go "
        "there; take it away, or name it among them"
    )
    # One of them, the default, which nobody has said, and a policy without hosts.
    for upstream in (Address("10.0.0.2", 11434), Address("127.0.0.1", 11434)):
        assert unused_upstream(upstream, hosts) is None
    assert unused_upstream(Address("10.0.0.9", 11434), {}) is None
