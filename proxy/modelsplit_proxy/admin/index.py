"""What stands at the root of the admin port: where everything else is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from modelsplit_proxy.admin.page import text_page

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from modelsplit_proxy.admin.page import Handler, Page, PageAsked

_HEAD: Final = """\
modelsplit's admin port. Clients go to the other one. On the command line: modelsplit status

"""


class IndexRoutes:
    """``/``: a line for each of ``paths``."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._text = _HEAD + "".join(f"{path}\n" for path in paths)
        self.routes: Mapping[str, Handler] = {"/": self._index}

    async def _index(self, asked: PageAsked) -> Page:
        del asked
        return text_page(self._text)
