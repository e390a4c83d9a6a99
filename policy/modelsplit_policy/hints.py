"""Commands as people are told to type them: each works when it is pasted."""

from __future__ import annotations


def asking(command: str, admin: str) -> str:
    """One of our commands, told which proxy to ask.

    ``admin``: where that is asked; empty: where the command asks by itself.
    """
    return f"{command} --admin {admin}" if admin else command
