"""Which tests one process runs, where several share a run."""

from __future__ import annotations

from typing import Final

from xdist.scheduler import LoadFileScheduling

# What these make once for all of their files takes long: environments, a browser, a wheel.
_WHOLE: Final = ("tests/browser/", "tests/clients/", "tests/wheels/")


class ByFile(LoadFileScheduling):  # type: ignore[misc]  # it has no types
    """The tests of a file in one process, and those of a folder that shares what is dear."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)


def scope_of(nodeid: str) -> str:
    file = nodeid.partition("::")[0]
    return next((folder for folder in _WHOLE if file.startswith(folder)), file)
