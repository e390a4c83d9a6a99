"""The clients' packages, in environments of their own, installed once and kept.

Exactly what the two lock files name, into a folder of the user's cache whose name is made of
their contents, so that all checkouts share it. The tests' own environment stays free of a
hundred packages that have nothing to do with this project.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from clients.catalogue import Language

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

FOLDER: Final = Path(__file__).parent
REQUIREMENTS: Final = FOLDER / "python" / "requirements.txt"
PACKAGE: Final = FOLDER / "node" / "package.json"
PACKAGE_LOCK: Final = FOLDER / "node" / "package-lock.json"
_NODE_MAJOR: Final = 20
# How pip and npm say that nobody answered, as opposed to an answer that is wrong.
_NO_NETWORK: Final = (
    *("NewConnectionError", "NameResolutionError", "ConnectTimeoutError", "ProxyError"),
    *("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ENETUNREACH"),
)


class Unavailable(Exception):  # noqa: N818 - a state of the machine, not an error
    """Why these clients cannot run here."""


class Unreachable(Unavailable):
    """Nobody answers where their packages come from: the one excuse there is."""


@dataclass(frozen=True)
class Places:
    """Where the clients are: Python's interpreter, Node's packages; or why they are not."""

    found: Mapping[Language, Path]
    missing: Mapping[Language, Unavailable]


def cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "modelsplit"


def places(languages: Iterable[Language] = tuple(Language)) -> Places:
    """Installed what can be of these languages, and for the others of them the reason."""
    missing: dict[Language, Unavailable] = {}
    found: dict[Language, Path] = {}
    finds = {Language.PYTHON: python, Language.NODE: node_modules}
    for language in languages:
        try:
            found[language] = finds[language]()
        except Unavailable as reason:
            missing[language] = reason
    return Places(found, missing)


def python() -> Path:
    """An interpreter that has the Python clients. Raises Unavailable."""
    version = "{}.{}".format(*sys.version_info)
    folder = _kept(f"clients-python{version}", [REQUIREMENTS], _install_python)
    return folder / "bin" / "python"


def node_modules() -> Path:
    """A ``node_modules`` folder with the Node clients. Raises Unavailable."""
    return node_packages("clients-node", PACKAGE, PACKAGE_LOCK)


def node_packages(name: str, package: Path, lock: Path) -> Path:
    """A ``node_modules`` folder with what the lock names, kept as ``name``. Raises Unavailable."""
    node()
    install = partial(_install_node, package, lock)
    return _kept(name, [package, lock], install) / "node_modules"


def node() -> Path:
    """Node itself. Raises Unavailable."""
    found, npm = shutil.which("node"), shutil.which("npm")
    if found is None or npm is None:
        raise Unavailable("node and npm are not installed")
    said = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    if int(said.lstrip("v").partition(".")[0]) < _NODE_MAJOR:
        raise Unavailable(f"node is {said.strip()}, not {_NODE_MAJOR} or newer")
    return Path(found)


def _install_python(folder: Path) -> None:
    venv.create(folder, with_pip=True)
    # The lock file is the whole set, so there is nothing to resolve.
    pip = (folder / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "install")
    _call([*pip, "-q", "--no-deps", "--no-compile", "-r", REQUIREMENTS], folder)


def _install_node(package: Path, lock: Path, folder: Path) -> None:
    shutil.copy(package, folder)
    shutil.copy(lock, folder)
    _call(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder)


def _call(command: list[str | Path], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    said = done.stdout + done.stderr
    if any(word in said for word in _NO_NETWORK):
        raise Unreachable(f"the package registry cannot be reached ({command[0]})")
    raise RuntimeError(f"{' '.join(map(str, command))} failed:\n{said}")


def _kept(name: str, locks: list[Path], install: Callable[[Path], None]) -> Path:
    """The folder for these locks, installed now unless an earlier run did."""
    digest = hashlib.sha256(b"".join(lock.read_bytes() for lock in locks)).hexdigest()
    folder = cache() / f"{name}-{digest[:12]}"
    complete = folder / "complete"
    with _alone(folder.parent / f"{folder.name}.lock"):
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            install(folder)
            complete.touch()
    return folder


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Of several test runs on a machine, one installs and the others wait for it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"{path.parent} cannot be made: {error.strerror}") from error
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
