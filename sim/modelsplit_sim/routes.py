"""From method, target and headers to a route, or to the answer that precedes all routes."""

from __future__ import annotations

import html
import ipaddress
import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

from .reply import Headers, Reply

if TYPE_CHECKING:
    from .exchange import Request

_POSTS = [
    "/api/generate",
    "/api/chat",
    "/api/embed",
    "/api/embeddings",
    "/api/show",
    "/api/pull",
    "/api/push",
    "/api/create",
    "/api/copy",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/messages",
    "/v1/responses",
    "/v1/audio/transcriptions",
]
# Path to the methods it has, in the order in which Allow names them (observed).
ROUTES: dict[str, tuple[str, ...]] = {
    "/": ("HEAD", "GET"),
    "/api/version": ("HEAD", "GET"),
    "/api/tags": ("HEAD", "GET"),
    "/api/ps": ("GET",),
    "/api/status": ("GET",),
    "/v1/models": ("GET",),
    "/v1/models/*": ("GET",),
    "/api/blobs/*": ("HEAD", "POST"),
    "/api/delete": ("DELETE",),
    **dict.fromkeys(_POSTS, ("POST",)),
}
_STAINLESS = [
    "Arch",
    "Async",
    "Custom-Poll-Interval",
    "Helper-Method",
    "Lang",
    "Os",
    "Package-Version",
    "Poll-Helper",
    "Retry-Count",
    "Runtime",
    "Runtime-Version",
    "Timeout",
]
_ALLOWED_HEADERS = ",".join(
    [
        *(
            [
                "Authorization",
                "Content-Type",
                "User-Agent",
                "Accept",
                "X-Requested-With",
                "Openai-Beta",
            ]
        ),
        *(f"X-Stainless-{name}" for name in _STAINLESS),
    ]
)
_ORIGIN = re.compile(
    r"https?://(?:localhost|127\.0\.0\.1|0\.0\.0\.0)(?::[0-9]+)?"
    r"|(?:app|file|tauri|vscode-webview|vscode-file)://.*"
)
_LOCAL_SUFFIXES = (".localhost", ".local", ".internal")
_TEXT: Headers = (("Content-Type", "text/plain"),)


@dataclass(frozen=True, slots=True)
class Match:
    """reply: the answer, when no handler is asked. headers: CORS, for whatever answers."""

    route: str = ""
    parameter: str = ""
    headers: Headers = ()
    reply: Reply | None = None


def resolve(request: Request, hostname: str) -> Match:
    """In Ollama's order: path cleaning, route, trailing slash, CORS, Host, method."""
    path, _, query = request.target.partition("?")
    tail = f"?{query}" if query else ""
    clean = _clean(path)
    if clean != path:
        return Match(reply=_redirect(request.method, 307, clean + tail))
    route, parameter = _route(unquote(path))
    if not route and _route(path.rstrip("/"))[0]:
        status = 301 if request.method == "GET" else 307
        return Match(reply=_redirect(request.method, status, path.rstrip("/") + tail))
    methods = ROUTES.get(route, ())
    wrong = bool(route) and request.method not in methods
    allow: Headers = (("Allow", ", ".join(methods)),) if wrong else ()
    headers, refusal = _cors(request)
    refusal = refusal or _check_host(request, hostname)
    if refusal is None and not route:
        refusal = Reply(404, _TEXT, b"404 page not found")
    if refusal is None and wrong:
        refusal = Reply(405, _TEXT, b"405 method not allowed")
    return Match(route, parameter, headers + allow, refusal)


def _clean(path: str) -> str:
    """Observed: //api/tags and /api/../api/tags are redirected to the clean path."""
    clean = "/" + posixpath.normpath(path).lstrip("/") if path.startswith("/") else path
    return clean + "/" if path.endswith("/") and clean != "/" else clean


def _route(path: str) -> tuple[str, str]:
    """The route and what its star stands for."""
    if path in ROUTES:
        return path, ""
    for prefix in ("/v1/models/", "/api/blobs/"):
        rest = path.removeprefix(prefix)
        if rest != path and rest and "/" not in rest.rstrip("/") and not rest.endswith("/"):
            return f"{prefix}*", rest
    return "", ""


def _redirect(method: str, status: int, where: str) -> Reply:
    headers: Headers = (("Location", where),)
    if method not in ("GET", "HEAD"):
        return Reply(status, headers)
    phrase = {301: "Moved Permanently", 307: "Temporary Redirect"}[status]
    body = f'<a href="{html.escape(where)}">{phrase}</a>.\n\n'.encode()
    return Reply(status, (("Content-Type", "text/html; charset=utf-8"), *headers), body)


def _cors(request: Request) -> tuple[Headers, Reply | None]:
    """Observed: a foreign Origin is refused on every request, preflight comes before Host."""
    origin = request.header("origin")
    host = request.header("host") or ""
    if not origin or origin in (f"http://{host}", f"https://{host}"):
        return (), None
    if _ORIGIN.fullmatch(origin) is None:
        return (), Reply(403)
    allowed = ("Access-Control-Allow-Origin", origin)
    if request.method != "OPTIONS":
        return (allowed, ("Vary", "Origin")), None
    preflight: Headers = (
        ("Access-Control-Allow-Headers", _ALLOWED_HEADERS),
        ("Access-Control-Allow-Methods", "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"),
        allowed,
        ("Access-Control-Max-Age", "43200"),
        ("Vary", "Origin"),
        ("Vary", "Access-Control-Request-Method"),
        ("Vary", "Access-Control-Request-Headers"),
    )
    return preflight, Reply(204, bare=True)


def _check_host(request: Request, hostname: str) -> Reply | None:
    """None to go on. Observed: OPTIONS by a local name is 204, by address goes on to 405."""
    host = _host_name(request.header("host") or "")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        local = address.is_loopback or address.is_private or address.is_unspecified
        return None if local else Reply(403)
    if host in ("", "localhost", hostname) or host.endswith(_LOCAL_SUFFIXES):
        return Reply(204, bare=True) if request.method == "OPTIONS" else None
    return Reply(403)


def _host_name(value: str) -> str:
    """Without port and brackets, lower case."""
    if value.startswith("["):
        return value[1:].partition("]")[0]
    return value.rpartition(":")[0].lower() if ":" in value else value.lower()
