"""``print-unit``, ``print-policy`` and ``completion``: files that come with the program."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from modelsplit_proxy.cli.command import Argument, Command
from modelsplit_proxy.cli.output import CommandError, ExitCode, talk
from modelsplit_proxy.config import shipped_files
from modelsplit_proxy.runtime.disk_trouble import drop_begun, explained

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

_POLICY: Final = "model-policy.json"
_SCHEMA: Final = "model-policy.schema.json"
_COMPLETIONS: Final = {"bash": "modelsplit.bash", "zsh": "_modelsplit", "fish": "modelsplit.fish"}
_CLOUD: Final = """\
# For /etc/systemd/system/modelsplit.service.d/cloud.conf: lets the service reach a cloud.
#
# The unit allows no address but this machine's, enforced by the kernel. An API in the internet has
# no addresses that stay, so this lifts that for the whole service: from then on only modelsplit's
# own checks (the policy's cloud.providers and cloud.allow_from, approvals, budgets) keep prompts
# on this machine. Where a network is known, name it in place of any.
[Service]
IPAddressAllow=any
# The key, in a file that root alone may read; NAME is the provider's name in the policy.
#LoadCredential=modelsplit-cloud-NAME:/etc/modelsplit/cloud-NAME.key
"""
# What ProtectHome=yes of the system's unit hides.
_HIDDEN: Final = ("/home", "/root", "/run/user")


def unit(*, socket: bool, user: bool, program: list[str]) -> str:
    """The text of a unit file; ``program`` is how this installation is started."""
    name = "modelsplit.socket" if socket else "modelsplit.service"
    lines = shipped_files.read(f"user/{name}" if user else name).splitlines()
    start = "ExecStart="
    command = f"{start}{_quoted(program)} serve"
    return "\n".join(command if line.startswith(start) else line for line in lines) + "\n"


def program() -> list[str]:
    """The words that start this installation: its script, or Python with our package."""
    script = Path(sys.executable).absolute().with_name("modelsplit")
    if script.is_file():
        return [str(script)]
    return [str(Path(sys.executable).absolute()), "-m", "modelsplit_proxy"]


def hidden(words: list[str], python: str) -> str | None:
    """The path under a home directory that a start needs; None if there is none.

    ``python``: the interpreter. A virtual environment's is a link to another place.
    """
    needed = [Path(words[0]), Path(python), Path(python).resolve()]
    return next((str(path) for path in needed if any(map(path.is_relative_to, _HIDDEN))), None)


def _quoted(words: list[str]) -> str:
    """As systemd reads a command line: quotes around blanks, ``%`` and ``$`` doubled."""
    return shlex.join(words).replace("%", "%%").replace("$", "$$")


def _print_unit(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    del environ
    if args.cloud:
        sys.stdout.write(_CLOUD)
        return ExitCode.OK
    words = program()
    sys.stdout.write(unit(socket=args.socket, user=args.user, program=words))
    inside = None if args.user or args.socket else hidden(words, sys.executable)
    if inside is not None:
        talk(
            f"warning: {inside} lies in a home directory, which this unit hides from the service: "
            "install into /opt/modelsplit, or take --user"
        )
    return ExitCode.OK


def _print_policy(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    del environ
    if args.into is None:
        sys.stdout.write(shipped_files.read(_SCHEMA if args.schema else _POLICY))
        return ExitCode.OK
    for name in (_POLICY, _SCHEMA):
        _write_new(args.into / name, shipped_files.read(name))
        sys.stdout.write(f"{args.into / name}\n")
    return ExitCode.OK


def _write_new(path: Path, text: str) -> None:
    """Make a file; CommandError where there is one, for it may have been edited."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise CommandError(f"{path} is there already; move it away", ExitCode.FAILED) from None
    except OSError as error:
        text = f"{path} cannot be made: {explained(error, path)}"
        drop_begun(path, error)
        raise CommandError(text, ExitCode.FAILED) from None


def _completion(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    shell = args.shell or Path(environ.get("SHELL", "")).name
    if shell not in _COMPLETIONS:
        names = ", ".join(_COMPLETIONS)
        raise CommandError(f"name the shell, one of {names}", ExitCode.USAGE)
    sys.stdout.write(shipped_files.read(_COMPLETIONS[shell]))
    return ExitCode.OK


PRINT_UNIT: Final = Command(
    "print-unit",
    "the systemd unit that starts this installation",
    "Print the systemd service that starts this installation, or its socket.",
    _print_unit,
    (
        Argument("--socket", action="store_true", help="the socket unit instead"),
        Argument("--user", action="store_true", help="for one user's systemd, not the system's"),
        Argument("--cloud", action="store_true", help="a drop-in that lets it reach a cloud"),
    ),
    example=(
        "examples:\n"
        "  modelsplit print-unit > /etc/systemd/system/modelsplit.service\n"
        "  modelsplit print-unit --socket > /etc/systemd/system/modelsplit.socket\n"
    ),
)
PRINT_POLICY: Final = Command(
    "print-policy",
    "the shipped policy, as a file to edit",
    "Print the shipped policy. Exit 0: done; 1: a file cannot be made.",
    _print_policy,
    (
        Argument("--schema", action="store_true", help="its JSON schema instead, for editors"),
        Argument(
            "--into", type=Path, metavar="DIR", help="write both as new files of this directory"
        ),
    ),
    example="example: modelsplit print-policy --into /etc/modelsplit",
)
COMPLETION: Final = Command(
    "completion",
    "what a shell needs to complete our commands",
    "Print the completion script of a shell.",
    _completion,
    (Argument("shell", nargs="?", metavar="bash|zsh|fish", help="default: that of $SHELL"),),
    example=(
        "examples:\n"
        "  modelsplit completion bash > /etc/bash_completion.d/modelsplit\n"
        "  modelsplit completion zsh > ~/.zfunc/_modelsplit\n"
        "  modelsplit completion fish > ~/.config/fish/completions/modelsplit.fish\n"
    ),
)
