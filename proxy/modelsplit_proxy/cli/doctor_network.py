"""The network, as ``modelsplit doctor`` sees it: ports, who passes us by, certificates, filters."""

from __future__ import annotations

import ipaddress
import pwd
import socket
import ssl
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from modelsplit_proxy.cli import doctor_sockets, port_holder
from modelsplit_proxy.cli.doctor_findings import Finding, Unseen, is_here
from modelsplit_proxy.runtime import local_time

if TYPE_CHECKING:
    from collections.abc import Iterator

    from modelsplit_proxy.cli.doctor_findings import Look
    from modelsplit_proxy.cli.doctor_sockets import Owner, TcpSocket
    from modelsplit_proxy.config.settings import Address

_UNIT: Final = "modelsplit.service"
_SYSTEMD: Final = "systemd"
_OURS: Final = "modelsplit"
_PROVIDER: Final = "the cloud provider "
_OPEN: Final = "sudo systemctl edit modelsplit   # [Service] IPAddressAllow=any, or its network"
_OPEN_CLOUD: Final = (
    "modelsplit print-unit --cloud   # into /etc/systemd/system/modelsplit.service.d/cloud.conf"
)
_TLS_PORT: Final = 443
_TLS_TIMEOUT_S: Final = 3.0
_DAY_S: Final = 86400.0
_SOON_DAYS: Final = 14.0
# Of a host that has no address: none of ours.
_NOWHERE: Final = ipaddress.ip_address("192.0.2.1")


def ports(look: Look) -> Iterator[Finding | Unseen]:
    """Whether somebody else has one of our ports, and who."""
    rows = doctor_sockets.sockets(look.proc)
    if rows is None:
        yield Unseen("ports", "this system has no /proc/net/tcp")
        return
    taken: dict[str, dict[str, Address]] = {}
    for flag, address in (("--listen", look.settings.listen), ("--admin", look.settings.admin)):
        who = _stranger(look, rows, flag, address)
        if who is not None:
            taken.setdefault(who, {})[flag] = address
    # One command for all of them, whoever has each.
    every = {flag: at for addresses in taken.values() for flag, at in addresses.items()}
    for who, addresses in taken.items():
        named = " and ".join(f"{at.port} ({flag})" for flag, at in addresses.items())
        cause = f"port {named} is" if len(addresses) == 1 else f"ports {named} are"
        step = look.serve(instead=port_holder.others(every))
        yield Finding("ports", f"{cause} taken by {who}", step)


def _stranger(look: Look, rows: list[TcpSocket], flag: str, address: Address) -> str | None:
    """Who has one of our addresses and is none of us, in words; None: nobody."""
    row = doctor_sockets.listener(rows, address)
    if row is None or not address.port:
        return None
    who = doctor_sockets.owners(look.proc, {row.inode}).get(row.inode)
    # systemd holds our port while we restart, and who takes over while the other drains.
    holder = {_SYSTEMD, _OURS} if (look.stats or {}).get("draining") else {_SYSTEMD}
    is_held = who is not None and who.name in holder
    if is_held or port_holder.is_ours(address, flag):
        return None
    return str(who or _user(row.uid))


def _user(uid: int) -> str:
    try:
        return f"a process of {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"a process of user {uid}"


def direct(look: Look) -> Iterator[Finding | Unseen]:
    """Who talks to Ollama without us."""
    upstream = look.settings.upstream
    rows = doctor_sockets.sockets(look.proc)
    if rows is None or not is_here(upstream):
        return
    calls = [row for row in rows if not row.listens and row.remote.port == upstream.port]
    calls = [row for row in calls if is_here(row.remote)]
    admin = doctor_sockets.listener(rows, look.settings.admin)
    known = doctor_sockets.owners(
        look.proc, {row.inode for row in calls} | ({admin.inode} if admin else set())
    )
    ours = known.get(admin.inode) if admin and look.stats is not None else None
    strangers, others = [], []
    for row in calls:
        owner = known.get(row.inode)
        if owner is not None and owner.name == _OURS and owner != ours:
            others.append(owner)
        elif owner is not None and owner != ours and owner.name != _SYSTEMD:
            strangers.append(str(owner))
        elif owner is None and (admin is None or row.uid != admin.uid):
            strangers.append(_user(row.uid))
    # Two of us are there for as long as one takes over from the other.
    for other in () if (look.stats or {}).get("draining") else dict.fromkeys(others):
        yield Finding(
            "direct",
            f"another {other} is in front of Ollama at {upstream}: neither knows of the other's "
            "calls",
            _ask_other(look, rows, other),
        )
    for who in dict.fromkeys(strangers):
        yield Finding(
            "direct",
            f"{who} talks to Ollama at {upstream} itself: its calls have no role and no place in "
            "line, and slow down those that do",
            f"export OLLAMA_HOST=http://{look.settings.listen}   # there",
        )


def _ask_other(look: Look, rows: list[TcpSocket], other: Owner) -> str:
    """The command that asks another modelsplit of this machine; else one that shows its flags."""
    listening = {row.inode: row.local for row in rows if row.listens}
    has = doctor_sockets.owners(look.proc, listening)
    for inode, address in listening.items():
        if has.get(inode) == other and port_holder.is_admin(address):
            return f"modelsplit status --admin {address}"
    return f"ps -o args= -p {other.pid}"


def filters(look: Look) -> Iterator[Finding | Unseen]:
    """Whether the service's packet filter lets through what the settings and the policy need."""
    command = ["systemctl", "show", _UNIT, "--property=IPAddressAllow,IPAddressDeny"]
    told = look.run(command)
    values = dict(line.partition("=")[::2] for line in (told or "").splitlines())
    if not values.get("IPAddressDeny"):
        return
    allowed = [
        ipaddress.ip_network(word, strict=False)
        for word in values.get("IPAddressAllow", "").split()
    ]
    for what, host in _remote(look):
        addresses = _addresses(host)
        if not any(address in network for address in addresses for network in allowed):
            yield Finding(
                "filter",
                f"{_UNIT} has IPAddressDeny=any and no IPAddressAllow= for {what} at {host}: it "
                "cannot be reached",
                _OPEN_CLOUD if what.startswith(_PROVIDER) else _OPEN,
            )


def _remote(look: Look) -> Iterator[tuple[str, str]]:
    """What is asked over the network beyond this machine, and where."""
    settings = look.settings
    if not is_here(settings.upstream):
        yield "Ollama", settings.upstream.host
    collector = urlsplit(settings.otlp_endpoint).hostname
    if collector and not _is_loopback(collector):
        yield "the collector of traces", collector
    providers = {} if look.policy is None else look.policy.cloud.providers
    for name, provider in providers.items():
        host = urlsplit(provider.base_url).hostname
        if host and not _is_loopback(host):
            yield f"{_PROVIDER}{name}", host


def _is_loopback(host: str) -> bool:
    return all(address.is_loopback for address in _addresses(host) or [_NOWHERE])


def _addresses(host: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]


def certificates(look: Look) -> Iterator[Finding | Unseen]:
    """Whether the certificate of whoever does TLS for us on this machine is near its end."""
    for name in look.settings.allow_hosts:
        if _is_address(name):
            continue
        try:
            der = _certificate(name, _TLS_PORT)
        except ConnectionRefusedError:
            continue
        except OSError as error:
            yield Unseen("certificates", f"{name}, port {_TLS_PORT} of this machine: {error}")
            continue
        end = None if der is None else ends_at(der)
        if end is None:
            yield Unseen("certificates", f"that of {name} does not say when it ends")
        elif end - look.clock.wall() < _SOON_DAYS * _DAY_S:
            when = local_time.minute_of(end)
            verb = "ended" if end < look.clock.wall() else "ends"
            yield Finding(
                "certificates",
                f"the certificate of {name} {verb} at {when}",
                "sudo systemctl reload caddy   # or certbot renew; then look at its log",
            )


def _certificate(name: str, port: int) -> bytes | None:
    """What is shown for a name on this machine; nothing is checked but what it says."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), timeout=_TLS_TIMEOUT_S) as raw,
        context.wrap_socket(raw, server_hostname=name) as wrapped,
    ):
        return wrapped.getpeercert(binary_form=True)


def ends_at(der: bytes) -> float | None:
    """``notAfter`` of a certificate in DER (RFC 5280 §4.1) as wall time; None: it is none."""
    try:
        fields = list(_elements(_elements(_elements(der)[0][1])[0][1]))
        # After an optional version: serial, algorithm, issuer, validity.
        validity = fields[4 if fields[0][0] == 0xA0 else 3][1]
        tag, text = _elements(validity)[1]
        form = "%y%m%d%H%M%SZ" if tag == 0x17 else "%Y%m%d%H%M%SZ"
        return datetime.strptime(text.decode(), form).replace(tzinfo=UTC).timestamp()
    except (IndexError, ValueError):
        return None


def _elements(data: bytes) -> list[tuple[int, bytes]]:
    """Tag and content of each element of DER one after the other; IndexError, ValueError."""
    found = []
    at = 0
    while at < len(data):
        tag, length, at = data[at], data[at + 1], at + 2
        if length & 0x80:
            more = length & 0x7F
            length, at = int.from_bytes(data[at : at + more]), at + more
        if at + length > len(data):
            raise ValueError("cut short")
        found.append((tag, data[at : at + length]))
        at += length
    return found


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
