"""What stands at the root of the admin port: the page for browsers, else where everything is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from modelsplit_policy.hints import asking
from modelsplit_proxy.admin.page import text_page
from modelsplit_proxy.config.settings import other_than_default

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from modelsplit_proxy.admin.page import Handler, Live, Page, PageAsked, Pages
    from modelsplit_proxy.config.settings import Address

_HEAD: Final = """\
modelsplit's admin port. Clients go to the other one. On the command line: %s

"""


class IndexRoutes:
    """``/``: ``page`` for who wants HTML, a line for each of ``paths`` for others.

    ``admin``: where this port is, once it is open.
    """

    def __init__(
        self, paths: Iterable[str], page: Handler, admin: Callable[[], Address | None]
    ) -> None:
        self._page = page
        self._paths = "".join(f"{path}\n" for path in paths)
        self._admin = admin
        self.routes: Mapping[str, Handler] = {"/": self._index}

    async def _index(self, asked: PageAsked) -> Page | Pages | Live:
        if "text/html" in asked.accept:
            return await self._page(asked)
        status = asking("modelsplit status", other_than_default(self._admin()))
        return text_page(_HEAD % status + self._paths)
