"""What stands at the root of the admin port: the page for browsers, else where everything is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from modelsplit_proxy.admin.page import text_page

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from modelsplit_proxy.admin.page import Handler, Live, Page, PageAsked, Pages

_HEAD: Final = """\
modelsplit's admin port. Clients go to the other one. On the command line: modelsplit status

"""


class IndexRoutes:
    """``/``: ``page`` for who wants HTML, a line for each of ``paths`` for others."""

    def __init__(self, paths: Iterable[str], page: Handler) -> None:
        self._page = page
        self._text = _HEAD + "".join(f"{path}\n" for path in paths)
        self.routes: Mapping[str, Handler] = {"/": self._index}

    async def _index(self, asked: PageAsked) -> Page | Pages | Live:
        if "text/html" in asked.accept:
            return await self._page(asked)
        return text_page(self._text)
