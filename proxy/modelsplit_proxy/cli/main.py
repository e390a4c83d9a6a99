"""The command line: arguments in, an exit code out. stdout is data, stderr is talk."""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from modelsplit_policy.config.problems import PolicyError
from modelsplit_proxy.app import PortBusyError
from modelsplit_proxy.cli import budget, check, experiments, requests, serve, status
from modelsplit_proxy.cli import keys as cli_keys
from modelsplit_proxy.config import key_file, policy_file
from modelsplit_proxy.config.settings import OPTIONS, SettingError, read_settings
from modelsplit_proxy.records.query import QueryError
from modelsplit_proxy.runtime import streams
from modelsplit_proxy.runtime.clock import SystemClock
from modelsplit_proxy.runtime.streams import OutputError
from modelsplit_proxy.storage.state_file import StoreError
from modelsplit_proxy.storage.state_lock import StateBusyError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from modelsplit_proxy.config.settings import Option, Settings

# sysexits(3): what service managers and people's scripts already know.
EX_OK: Final = 0
EX_FAILED: Final = 1
EX_USAGE: Final = 2
EX_UNAVAILABLE: Final = 69
EX_CONFIG: Final = 78

_SERVE_EXAMPLES: Final = """\
examples:
  modelsplit serve
  modelsplit serve --listen 127.0.0.1:11500 --upstream http://127.0.0.1:11434
  modelsplit serve --policy /etc/modelsplit/model-policy.json --log-format json

Every setting can also come from the environment, e.g. MODELSPLIT_LISTEN.
"""


def run(arguments: list[str], environ: Mapping[str, str]) -> int:
    """Run one command; returns its exit code. SystemExit after help and wrong usage."""
    try:
        try:
            return _run(arguments, environ)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output has gone, as in `modelsplit route x | head -0`.
        streams.drop_output()
        return EX_OK
    except OutputError as error:
        streams.drop_output()
        _talk(f"the output cannot be written: {error}")
        return EX_FAILED


def _run(arguments: list[str], environ: Mapping[str, str]) -> int:
    parser = build_parser()
    args = parser.parse_args(arguments)
    if args.command is None:
        parser.print_help(sys.stderr)
        return EX_USAGE
    try:
        return _dispatch(args, environ)
    except (PortBusyError, StateBusyError) as error:
        _talk(str(error))
        return EX_UNAVAILABLE
    except (SettingError, QueryError, PolicyError, StoreError) as error:
        _talk(str(error))
        return _code_of(error, args.command)
    except KeyboardInterrupt:
        return 130


def _code_of(error: Exception, command: str) -> int:
    """A service that cannot be configured says so as sysexits does; a question was just wrong."""
    if command in {"serve", "demo"}:
        return EX_CONFIG
    return EX_USAGE if isinstance(error, (SettingError, QueryError)) else EX_FAILED


def _dispatch(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    command: Callable[[argparse.Namespace, Mapping[str, str]], int] = {
        "serve": _serve,
        "demo": _demo,
        "status": _status,
        "requests": _requests,
        "experiments": _experiments,
        "route": _route,
        "keys": _keys,
        "budget": _budget,
        "check-config": _check_config,
    }[args.command]
    return command(args, environ)


def _settings(args: argparse.Namespace, environ: Mapping[str, str]) -> Settings:
    flags = {option.name: getattr(args, _attribute(option), None) for option in OPTIONS}
    return read_settings(flags, environ)


def _serve(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    settings = _settings(args, environ)
    loaded = policy_file.load(policy_file.find_policy(settings.policy, environ))
    keys = key_file.find(settings.keys, environ)
    keyring = None if keys is None else key_file.load(keys, environ)
    return serve.run(settings, loaded, keyring, environ)


def _demo(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    # The stand-in would be two megabytes to a process that serves.
    from modelsplit_proxy.cli import demo  # noqa: PLC0415

    return demo.run(_settings(args, environ), once=args.once)


def _status(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    return status.run(_settings(args, environ).admin, as_json=args.json)


def _requests(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    asked = requests.read_arguments(args)
    # Only the flag asks for the file: the variable says where the proxy keeps it.
    admin = read_settings({"admin": args.admin}, environ).admin
    return requests.run(asked, admin, args.state, SystemClock())


def _experiments(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    admin = _settings(args, environ).admin
    return experiments.run(admin, args.name, args.since, as_json=args.json)


def _route(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    if not args.model.strip():
        raise SettingError("MODEL is empty; give the name that a client would send")
    loaded = policy_file.load(policy_file.find_policy(args.policy, environ))
    key = args.key or ""
    return check.route(loaded, args.model, args.role or "", key=key, as_json=args.json)


def _check_config(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    upstream = _settings(args, environ).upstream if args.online else None
    return check.config(args.policy, environ, upstream, as_json=args.json)


def _keys(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    if args.verb == "new":
        return cli_keys.new(
            args.name, args.roles, manage_models=args.manage_models, as_json=args.json
        )
    named = args.file or read_settings({}, environ).keys
    return cli_keys.check(named, environ, as_json=args.json)


def _budget(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    return budget.run(args, _settings(args, environ), environ)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="modelsplit",
        description="A sidecar reverse proxy for Ollama: roles, one queue, one fallback.",
        epilog="Start with `modelsplit demo`: it needs no Ollama.",
    )
    parser.add_argument(
        "--version", action="version", version=f"modelsplit {version('modelsplit')}"
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    _add_serve(commands)
    _add_demo(commands)
    _add_status(commands)
    _add_requests(commands)
    _add_check(commands)
    _add_route(commands)
    _add_experiments(commands)
    _add_keys(commands)
    _add_budget(commands)
    return parser


def _add_serve(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "serve",
        help="run the proxy",
        description="Run the proxy until SIGTERM, SIGHUP or Ctrl-C.",
        epilog=_SERVE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for option in OPTIONS:
        _add_option(parser, option)


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "demo",
        help="see it work without Ollama: a stand-in upstream and a little traffic",
        description="Start a stand-in Ollama and the proxy in front of it, send a little mixed "
        "traffic, print each call as it happens, stay up for curl until Ctrl-C.",
    )
    parser.add_argument("--once", action="store_true", help="leave when the traffic is through")
    for option in OPTIONS:
        if option.name in {"listen", "admin"}:
            _add_option(parser, option)


def _add_status(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "status",
        help="what the running proxy is doing",
        description="One screen of what the running proxy is doing. "
        "Exit 0: well; 1: degraded; 3: not running.",
    )
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    for option in OPTIONS:
        if option.name == "admin":
            _add_option(parser, option)


def _add_requests(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "requests",
        help="what became of calls: a list, or one of them explained",
        description="Finished calls, the last one last; with ID, one call explained. "
        "Exit 0: found; 1: no such call; 2: wrong usage; 3: not running.",
        epilog=requests.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    requests.add_arguments(parser)
    for option in OPTIONS:
        if option.name == "admin":
            _add_option(parser, option)


def _add_check(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "check-config",
        help="check a policy file; every error at once",
        description="Check a policy file. Exit 0: good; 1: not; 2: wrong usage.",
        epilog="example: modelsplit check-config ./model-policy.json --online",
    )
    parser.add_argument("policy", nargs="?", type=Path, help="default: the file serve would use")
    parser.add_argument("--online", action="store_true", help="also ask Ollama what is installed")
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    for option in OPTIONS:
        if option.name == "upstream":
            _add_option(parser, option)


def _add_route(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "route",
        help="which role and model a call would get, and why",
        description="Dry run: which role and model a call would get, and why. "
        "Exit 0: it would be asked; 1: it would be refused.",
        epilog="example: modelsplit route planner",
    )
    parser.add_argument("model", metavar="MODEL", help="the model name a client would send")
    parser.add_argument("--role", help="the X-LLM-Role header a client would send")
    parser.add_argument(
        "--key", help="the job, client or request by which an experiment picks the arm"
    )
    parser.add_argument(
        "--policy", type=Path, metavar="FILE", help="default: the file serve would use"
    )
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def _add_keys(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "keys",
        help="make a key for a client; check a file of keys",
        description="Keys for clients. They are off until serve is given a file of them (--keys).",
        epilog="example: modelsplit keys new --name laptop --roles PLANNER,CHAT",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    new = verbs.add_parser(
        "new",
        help="print a fresh key, and the entry for the file; nothing is stored",
        description="Print a fresh key, and the entry for the file of keys; nothing is stored. "
        "Exit 0: done; 2: wrong usage.",
    )
    new.add_argument("--name", required=True, help="the client's name in logs and limits")
    new.add_argument("--roles", help="which roles it may call (default all)")
    new.add_argument("--manage-models", action="store_true", help="it may pull, create, delete …")
    new.add_argument("--json", action="store_true", help="machine-readable output")
    check_file = verbs.add_parser(
        "check",
        help="check a file of keys; every error at once",
        description="Check a file of keys: every error at once, or what each key may do. "
        "Exit 0: good; 1: not; 2: wrong usage.",
    )
    check_file.add_argument("file", nargs="?", type=Path, help="default: the file serve would use")
    check_file.add_argument("--json", action="store_true", help="machine-readable output")


def _add_experiments(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "experiments",
        help="what the arms of an experiment have shown so far",
        description="Compare the arms of an experiment, with intervals. "
        "Exit 0: told; 1: no such experiment; 2: wrong usage; 3: not running.",
        epilog="example: modelsplit experiments planner-size --since 7d",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="default: all of them")
    parser.add_argument("--since", metavar="TIME", help="a time ago, as 7d, or a date")
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    for option in OPTIONS:
        if option.name == "admin":
            _add_option(parser, option)


def _add_budget(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "budget",
        help="where budgets stand; who may spend what in the cloud",
        description="Budgets, and approvals of the cloud. Works on the state file, beside a "
        "running proxy. Exit 0: done; 1: not; 2: wrong usage.",
        epilog=budget.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    budget.add_arguments(parser)


def _add_option(parser: argparse.ArgumentParser, option: Option) -> None:
    if option.switch:
        parser.add_argument(option.flag, action="store_const", const="yes", help=option.help)
        return
    default = f" (default {option.default})" if option.default else ""
    parser.add_argument(
        option.flag,
        dest=_attribute(option),
        action="append" if option.repeatable else "store",
        metavar=option.name.rpartition("-")[2].upper(),
        help=f"{option.help}{default}",
    )


def _attribute(option: Option) -> str:
    return option.name.replace("-", "_")


def _talk(text: str) -> None:
    sys.stderr.write(f"modelsplit: {text}\n")
