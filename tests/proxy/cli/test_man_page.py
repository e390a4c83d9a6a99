"""The manual page is made from the table of commands."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from modelsplit_proxy.cli.command import JSON, Argument, Command
from modelsplit_proxy.cli.man_page import page


def _nothing(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    del args, environ
    return 0


COMMAND = Command(
    "ask",
    "h",
    "Ask somebody.",
    _nothing,
    (
        Argument("id", nargs="?", metavar="ID", help="whom"),
        Argument("--since", metavar="WHEN", required=True, help="from when on"),
        JSON,
    ),
    settings=("admin",),
    example="example: modelsplit ask x\n.hidden",
    verbs=(Command("again", "h", "Once more.", _nothing),),
)


def test_a_command_is_a_section_with_its_arguments_its_settings_and_its_example() -> None:
    lines = page([COMMAND]).splitlines()
    section = lines[lines.index(".SH COMMANDS") + 1 : lines.index(".SH ENVIRONMENT")]
    assert section == [
        r".SS ask [ID] \-\-since WHEN [\-\-json]",
        "Ask somebody.",
        *(".TP", r"\fIID\fR", "whom"),
        *(".TP", r"\fB\-\-since\fR \fIWHEN\fR", "from when on"),
        *(".TP", r"\fB\-\-json\fR", r"machine\-readable output"),
        *(".TP", r"\fB\-\-admin\fR \fIADMIN\fR, $MODELSPLIT_ADMIN"),
        "where metrics, health and statistics are served (default 127.0.0.1:11436)",
        *(".PP", ".nf", "example: modelsplit ask x", r"\&.hidden", ".fi"),
        *(".SS ask again", "Once more."),
    ]


def test_a_page_has_the_sections_that_man_pages_have() -> None:
    titles = [line[4:] for line in page([]).splitlines() if line.startswith(".SH ")]
    assert titles == [
        *("NAME", "SYNOPSIS", "DESCRIPTION", "COMMANDS", "ENVIRONMENT", "FILES", "EXIT STATUS"),
    ]
