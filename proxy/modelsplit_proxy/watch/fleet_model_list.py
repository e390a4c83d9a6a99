"""What several hosts have installed, asked of all as of one (``model_list``)."""

from __future__ import annotations

from asyncio import gather
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_policy.loaded_models import Listed
    from modelsplit_proxy.watch.model_list import ModelList


class FleetModelList:
    """What all hosts have installed; of a model that several have, what the first of them says."""

    def __init__(self, lists: Mapping[str, ModelList]) -> None:
        """``lists``: by the name of the host, in the policy's order."""
        self._lists = dict(lists)

    def __repr__(self) -> str:
        return f"<FleetModelList {self._lists!r}>"

    def outdate(self) -> None:
        for model_list in self._lists.values():
            model_list.outdate()

    def differs(self, body: bytes) -> bool:
        """Never: a list that a client is given is put together of what is known here."""
        del body
        return False

    def silent_about(self, model: str) -> tuple[str, ...]:
        """The hosts that do not say what they have, and may have the model."""
        return tuple(name for name, known in self._lists.items() if known.may_have(model))

    def names(self) -> list[str]:
        return list(dict.fromkeys(n for known in self._lists.values() for n in known.names()))

    async def since(self, moment: float) -> Mapping[str, Listed] | None:
        """As of one host; None where none of them says."""
        answers = await gather(*(known.since(moment) for known in self._lists.values()))
        told = [answer for answer in answers if answer is not None]
        if not told:
            return None
        return {name: row for answer in reversed(told) for name, row in answer.items()}

    async def details(self, model: Listed) -> bytes | None:
        """As of one host: of the first that has the model."""
        for known in self._lists.values():
            if model.name in known.names():
                return await known.details(model)
        return None
