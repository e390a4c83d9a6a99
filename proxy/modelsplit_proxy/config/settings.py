"""Process settings: flag, then ``MODELSPLIT_…`` environment, then file, then default.

``OLLAMA_HOST`` is never read: on the GPU host it is where Ollama listens, on a client it is
where we do, and guessing wrong would make the proxy its own upstream.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

from modelsplit_policy.near_names import near
from modelsplit_policy.quantity import count, quantity
from modelsplit_proxy.config import settings_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from modelsplit_proxy.config.settings_file import SettingsFile

_PREFIX: Final = "MODELSPLIT_"
# What the names of our variables begin with however the rest is misspelt.
_BEGINS_LIKE: Final = "MODEL"
# Not the process's: the client's, and those of our own tests.
_OTHERS: Final = frozenset({"MODELSPLIT_URL", settings_file.VARIABLE})
_TESTS: Final = ("MODELSPLIT_TEST", "MODELSPLIT_README")
# How like a known name another must be to be taken for a slip.
_LIKE: Final = 0.85
_PORT: Final = re.compile(r"[0-9]{1,5}")
_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)?")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE: Final = re.compile(r"([0-9]{1,15})(KiB|MiB|GiB)?")
_YES: Final = frozenset({"yes", "true", "on", "1"})
_NO: Final = frozenset({"", "no", "false", "off", "0"})
_PREFIXES: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_COUNT: Final = re.compile(r"[1-9][0-9]{0,5}")
# Of OTLP, under a collector's URL.
_TRACES_PATH: Final = "v1/traces"
_BYTES: Final = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


class SettingError(Exception):
    """A setting cannot be read. The text names it, what was said and what would do."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen or connect."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything about the process that is not policy. Seconds; bytes."""

    listen: Address
    admin: Address
    upstream: Address
    policy: Path | None
    keys: Path | None
    state: Path
    client_header_timeout_s: float
    client_body_timeout_s: float
    client_send_timeout_s: float
    connect_timeout_s: float
    stall_timeout_s: float
    drain_s: float
    max_body_bytes: int
    request_memory_bytes: int
    max_connections: int
    keep_records_s: float
    max_records_bytes: int
    log_format: str
    allow_hosts: tuple[str, ...]
    allow_origins: tuple[str, ...]
    trust_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    boot_id: str = ""
    otlp_endpoint: str = ""
    take_over: bool = False
    agent: Address | None = None
    # Where keys of clouds may stand.
    environ: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False, compare=False)
    shared: str = field(default="", repr=False)
    shared_prefix: str = "modelsplit"


@dataclass(frozen=True, slots=True)
class Option:
    """One setting: its flag (and so its variable), its default and its help.

    ``switch``: the flag takes no value, the variable yes or no.
    """

    name: str
    default: str
    help: str
    repeatable: bool = False
    switch: bool = False

    @property
    def flag(self) -> str:
        return f"--{self.name}"

    @property
    def variable(self) -> str:
        return f"MODELSPLIT_{self.name.upper().replace('-', '_')}"


_USUAL_OLLAMA: Final = frozenset({"127.0.0.1:11434", "localhost:11434"})
_DEFAULT_UPSTREAM: Final = Address("127.0.0.1", 11434)
DEFAULT_ADMIN: Final = Address("127.0.0.1", 11436)


def other_than_usual(authority: str) -> str:
    """The URL of the Ollama there, as its own commands have to be told it; empty: they know."""
    return "" if authority in _USUAL_OLLAMA else f"http://{authority}"


def other_than_default(admin: Address | None) -> str:
    """The admin address as commands have to be told it; empty: they ask there by themselves.

    Of port 0, which is any, there is nothing to tell.
    """
    known = admin is not None and admin.port and admin != DEFAULT_ADMIN
    return str(admin) if known else ""


def unused_upstream(upstream: Address, hosts: Mapping[str, str]) -> str | None:
    """That nobody asks at ``--upstream``, since the policy has hosts; None: nobody expects it.

    ``hosts``: the URL of each by its name. The default is nobody's wish, nor is one of them.
    """
    known = {_upstream("", url) for url in hosts.values()} | {_DEFAULT_UPSTREAM}
    if not hosts or upstream in known:
        return None
    names = ", ".join(hosts)
    return (
        f"--upstream http://{upstream} is not asked: the policy has hosts ({names}), and calls go "
        "there; take it away, or name it among them"
    )


OPTIONS: Final = (
    Option("listen", "127.0.0.1:11435", "where clients connect"),
    Option("admin", str(DEFAULT_ADMIN), "where metrics, health and statistics are served"),
    Option("agent", "", "where HAProxy's agent-check is told how much room there is"),
    Option("upstream", "http://127.0.0.1:11434", "the Ollama to stand in front of"),
    Option("policy", "", "policy file; default: the shipped policy"),
    Option("keys", "", "file of client keys; default: nobody needs one"),
    Option("state", "", "state directory; default: $STATE_DIRECTORY, else the user's"),
    Option("take-over", "", "ask the modelsplit that has the state to drain first", switch=True),
    Option("client-header-timeout", "10s", "longest time for a request's head to arrive"),
    Option("client-body-timeout", "30s", "longest silence inside a request's body"),
    Option("client-send-timeout", "5m", "longest time a client may take nothing of its answer"),
    Option("connect-timeout", "2s", "longest time to connect to the upstream"),
    Option("stall-timeout", "60s", "longest silence inside an answer that has begun"),
    Option("drain", "30s", "how long running answers may take to end on SIGTERM"),
    Option("max-body", "64MiB", "largest body of an inference request"),
    Option("request-memory", "128MiB", "what requests may hold while they arrive, together"),
    Option("max-connections", "2048", "most client connections at a time"),
    Option("keep-records", "30d", "how long records of finished calls are kept"),
    Option("max-records-size", "1GiB", "largest state file; the oldest records go first"),
    Option("log-format", "auto", "json, text, or auto: text on a terminal"),
    Option("otlp-endpoint", "", "OpenTelemetry collector to send traces to; default: none"),
    Option("shared", "", "Redis where several modelsplits count budgets together; default: none"),
    Option("shared-prefix", "modelsplit", "what the names of all keys there begin with"),
    Option("boot-id", "", "which boot of the machine this is, where the system hides it"),
    Option("allow-host", "", "further Host name to answer to", repeatable=True),
    Option("allow-origin", "", "further browser Origin to answer to", repeatable=True),
    Option("trust-proxy", "", "web server in front that may name the client", repeatable=True),
)


def read_settings(flags: Mapping[str, object], environ: Mapping[str, str]) -> Settings:
    """Combine flags, environment and file; SettingError with everything that cannot be read."""
    raw = {name: said.values for name, said in where_said(flags, environ).items()}
    read = _Reader(raw)
    policy, keys = raw["policy"][0], raw["keys"][0]
    settings = Settings(
        listen=read("listen", _address),
        admin=read("admin", _address),
        upstream=read("upstream", _upstream),
        policy=Path(policy) if policy else None,
        keys=Path(keys) if keys else None,
        state=_state(raw["state"][0], environ),
        client_header_timeout_s=read("client-header-timeout", _seconds),
        client_body_timeout_s=read("client-body-timeout", _seconds),
        client_send_timeout_s=read("client-send-timeout", _seconds),
        connect_timeout_s=read("connect-timeout", _seconds),
        stall_timeout_s=read("stall-timeout", _seconds),
        drain_s=read("drain", _seconds),
        max_body_bytes=read("max-body", _bytes),
        request_memory_bytes=read("request-memory", _bytes),
        max_connections=read("max-connections", _count),
        keep_records_s=read("keep-records", _seconds),
        max_records_bytes=read("max-records-size", _bytes),
        log_format=read("log-format", _log_format),
        allow_hosts=raw["allow-host"],
        allow_origins=raw["allow-origin"],
        trust_proxies=read.each("trust-proxy", _network),
        boot_id=raw["boot-id"][0],
        otlp_endpoint=read("otlp-endpoint", _otlp),
        environ=environ,
        take_over=read("take-over", _switch),
        agent=read("agent", _some_address),
        shared=read("shared", _redis),
        shared_prefix=read("shared-prefix", _redis_prefix),
    )
    read.check()
    if settings.upstream == settings.listen and settings.listen.port != 0:
        raise SettingError(
            f"--upstream {settings.upstream} is our own --listen address; every call would "
            "come back to us"
        )
    if settings.admin == settings.listen and settings.listen.port != 0:
        raise SettingError(f"--admin {settings.admin} is the --listen address too; give it its own")
    if settings.agent in {settings.listen, settings.admin} and settings.agent.port != 0:
        raise SettingError(f"--agent {settings.agent} is taken by another address of ours")
    return settings


class _Reader:
    """Reads settings one by one, and keeps what is wrong with them."""

    def __init__(self, raw: Mapping[str, tuple[str, ...]]) -> None:
        self._raw = raw
        self._problems: list[str] = []

    def __call__(self, name: str, read: Callable[[str, str], Any]) -> Any:
        """What ``read`` makes of the flag and its value; None: it cannot be read."""
        try:
            return read(f"--{name}", self._raw[name][0])
        except SettingError as error:
            self._problems.append(str(error))
            return None

    def each(self, name: str, read: Callable[[str, str], Any]) -> tuple[Any, ...]:
        """The same of every value of a flag that may be repeated."""
        found = []
        for raw in self._raw[name]:
            try:
                found.append(read(f"--{name}", raw))
            except SettingError as error:
                self._problems.append(str(error))
        return tuple(found)

    def check(self) -> None:
        """Raises SettingError if anything was wrong."""
        if self._problems:
            raise SettingError("\n".join(self._problems))


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """A sentence for every variable that looks like a setting and is none.

    It has our prefix, or is like one of ours with the prefix itself misspelt.
    """
    known = {option.variable for option in OPTIONS} | _OTHERS
    sentences = []
    for name in sorted(environ):
        if not name.upper().startswith(_BEGINS_LIKE) or name in known or name.startswith(_TESTS):
            continue
        from difflib import get_close_matches  # noqa: PLC0415

        like = get_close_matches(name.upper(), known, 1, _LIKE)
        if like:
            sentences.append(f"{name} is no setting of ours; is it {like[0]}?")
        elif name.startswith(_PREFIX):
            sentences.append(f"{name} is no setting of ours; see `modelsplit serve --help`")
    return sentences


_EXAMPLES: Final = MappingProxyType(
    {
        "--listen": "127.0.0.1:11435",
        "--admin": str(DEFAULT_ADMIN),
        "--agent": "127.0.0.1:11437",
    }
)


# Where a setting comes from that nobody has said.
DEFAULT: Final = "default"


class Said(NamedTuple):
    """What a setting is said to be. ``origin``: its flag, its variable, a file, or ``DEFAULT``."""

    values: tuple[str, ...]
    origin: str


def where_said(flags: Mapping[str, object], environ: Mapping[str, str]) -> dict[str, Said]:
    """Every setting by its name, as text. SettingError: the file of settings cannot be read."""
    try:
        file = settings_file.load(environ)
    except settings_file.SettingsFileError as error:
        raise SettingError(str(error)) from error
    if file is not None:
        _check_names(file)
    return {option.name: _said(option, flags, environ, file) for option in OPTIONS}


def _check_names(file: SettingsFile) -> None:
    options = {option.name: option for option in OPTIONS}
    problems = [
        f"{file.path}: {name} is no setting{_meant(name, options)}"
        for name in file.values
        if name not in options
    ]
    problems += [
        f"{file.path}: {name} takes one value"
        for name, values in file.values.items()
        if name in options and len(values) != 1 and not options[name].repeatable
    ]
    if problems:
        raise SettingError("\n".join(problems))


def _meant(name: str, options: Iterable[str]) -> str:
    """Which setting it may be, in words. Flags are written with hyphens, variables are not."""
    like = near(name.removeprefix(_PREFIX).replace("_", "-"), options)
    return "; see `modelsplit serve --help`" if like is None else f"; did you mean {like}?"


def _said(
    option: Option,
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    file: SettingsFile | None,
) -> Said:
    flag = flags.get(option.name)
    if isinstance(flag, list):
        return Said(tuple(str(item) for item in flag), option.flag)
    if flag is not None:
        return Said((str(flag),), option.flag)
    variable = environ.get(option.variable)
    if variable:
        parts = [part.strip() for part in variable.split(",")] if option.repeatable else [variable]
        return Said(tuple(filter(None, parts)), option.variable)
    if file is not None and option.name in file.values:
        return Said(file.values[option.name], str(file.path))
    return Said(() if option.repeatable else (option.default,), DEFAULT)


def _address(flag: str, raw: str) -> Address:
    """``HOST:PORT``, or the URL that we print of it."""
    host, colon, port = raw.removeprefix("http://").removesuffix("/").rpartition(":")
    if not colon or _PORT.fullmatch(port) is None or int(port) > 65535:
        raise SettingError(f'{flag} "{raw}" is not HOST:PORT, as in {_EXAMPLES[flag]}')
    return Address(host.strip("[]") or "127.0.0.1", int(port))


def _some_address(flag: str, raw: str) -> Address | None:
    return _address(flag, raw) if raw else None


def _upstream(flag: str, raw: str) -> Address:
    try:
        parts = urlsplit(raw if "//" in raw else f"//{raw}", scheme="http")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if host is None or parts.scheme != "http" or parts.path not in {"", "/"}:
        raise SettingError(
            f'{flag} "{raw}" is not an http URL without a path, as in http://127.0.0.1:11434'
        )
    return Address(host, 11434 if port is None else port)


def _redis(flag: str, raw: str) -> str:
    """The URL of a server; empty: none is wanted. What is said of it may hold a password."""
    if not raw:
        return ""
    try:
        parts = urlsplit(raw)
        named = parts.path if parts.scheme == "unix" else parts.hostname
        known = parts.scheme in {"redis", "rediss", "unix"} and parts.port != 0
    except ValueError:
        named, known = None, False
    if not named or not known:
        raise SettingError(
            f"{flag} is not the URL of a Redis, as in redis://127.0.0.1:6379/0, rediss://… for TLS "
            "or unix:///run/redis/redis.sock"
        )
    return raw


def _redis_prefix(flag: str, raw: str) -> str:
    if _PREFIXES.fullmatch(raw) is None:
        raise SettingError(f'{flag} "{raw}" is not a name of letters, digits and "-_.:"')
    return raw


def _otlp(flag: str, raw: str) -> str:
    """The URL that takes traces; empty: none is wanted. A URL without a path is a collector's."""
    if not raw:
        return ""
    try:
        parts = urlsplit(raw)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    known = host and port != 0 and parts.scheme in {"http", "https"}
    if not known or parts.query or parts.fragment or parts.username is not None:
        raise SettingError(
            f'{flag} "{raw}" is not a URL of http or https, as in http://127.0.0.1:4318; '
            "headers are said in OTEL_EXPORTER_OTLP_HEADERS"
        )
    if parts.path.endswith(f"/{_TRACES_PATH}"):
        return raw
    return f"{raw.rstrip('/')}/{_TRACES_PATH}"


def _network(flag: str, raw: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(raw, strict=False)
    except ValueError:
        raise SettingError(
            f'{flag} "{raw}" is no address and no network, as in 127.0.0.1 or 10.0.0.0/8'
        ) from None


def _seconds(flag: str, raw: str) -> float:
    match = _DURATION.fullmatch(raw)
    if match is None:
        raise SettingError(f'{flag} "{raw}" is not a duration, as in 500ms, 10s, 2m or 30d')
    seconds = float(match[1]) * _SECONDS[match[2] or "s"]
    if quantity(seconds * 1e6) is None:  # microseconds are what is counted in
        raise SettingError(f'{flag} "{raw}" is longer than 285 years')
    return seconds


def _log_format(flag: str, raw: str) -> str:
    if raw not in {"json", "text", "auto"}:
        raise SettingError(f'{flag} "{raw}" is unknown; use json, text or auto')
    return raw


def _switch(flag: str, raw: str) -> bool:
    if raw.lower() not in _YES | _NO:
        raise SettingError(f'{flag} "{raw}" is neither yes nor no')
    return raw.lower() in _YES


def _bytes(flag: str, raw: str) -> int:
    match = _SIZE.fullmatch(raw)
    if match is None:
        raise SettingError(f'{flag} "{raw}" is not a size, as in 512KiB, 64MiB or 1GiB')
    size = count(int(match[1]) * (_BYTES[match[2]] if match[2] else 1))
    if size is None:
        raise SettingError(f'{flag} "{raw}" is more than 8388607GiB')
    return size


def _count(flag: str, raw: str) -> int:
    if _COUNT.fullmatch(raw) is None:
        raise SettingError(f'{flag} "{raw}" is not a number from 1 to 999999')
    return int(raw)


def _state(raw: str, environ: Mapping[str, str]) -> Path:
    if raw:
        return Path(raw)
    # systemd may list several directories; ours is the first.
    if systemd := environ.get("STATE_DIRECTORY", "").partition(":")[0]:
        return Path(systemd)
    if xdg := environ.get("XDG_STATE_HOME"):
        return Path(xdg) / "modelsplit"
    return Path(environ.get("HOME", "/")) / ".local" / "state" / "modelsplit"
