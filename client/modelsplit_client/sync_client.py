"""The client for code that waits: ``Client``, its streams and its jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, overload

from modelsplit_client import clock, jobs
from modelsplit_client.calls import Call, CallOptions, SchemaModel
from modelsplit_client.dialect import Dialect
from modelsplit_client.settings import DEFAULT_URL, READ_TIMEOUT, settings
from modelsplit_client.sync_transport import Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import httpx

    from modelsplit_client.answers import Answer
    from modelsplit_client.calls import Message
    from modelsplit_client.sync_transport import Stream

ModelT = TypeVar("ModelT", bound=SchemaModel)


class Calls:
    """What a client and a job of it can both be asked.

    ``role``: PLANNER, EXECUTOR, HEAVY, CLOUD, CHAT, or whatever modelsplit's policy knows; ""
    leaves it to the model's name. ``retry_level``: 0 begins with the role's model, 1 with its
    fallback. ``schema``: a class with ``model_json_schema`` and ``model_validate_json``, such as a
    pydantic model, or a JSON schema. ``options``: see :class:`CallOptions`.

    All raise ``CallError`` (a class for each family of error codes), ``ProxyConnectionError`` where
    modelsplit does not answer, and TypeError or ValueError for what cannot be said or sent.
    """

    def __init__(self, transport: Transport, job_id: str = "") -> None:
        """``job_id``: of the job that every call belongs to that names none."""
        self._transport = transport
        self._own: CallOptions = {"job_id": job_id} if job_id else {}

    @overload
    def generate(
        self,
        prompt: str,
        role: str,
        retry_level: int = 0,
        *,
        schema: type[ModelT],
        **options: Unpack[CallOptions],
    ) -> Answer[ModelT]: ...

    @overload
    def generate(
        self,
        prompt: str,
        role: str,
        retry_level: int = 0,
        *,
        schema: Mapping[str, Any] | None = None,
        **options: Unpack[CallOptions],
    ) -> Answer[Any]: ...

    def generate(
        self,
        prompt: str,
        role: str,
        retry_level: int = 0,
        *,
        schema: type[SchemaModel] | Mapping[str, Any] | None = None,
        **options: Unpack[CallOptions],
    ) -> Answer[Any]:
        """The answer to a prompt. Raises SchemaInvalidError where it does not fit ``schema``."""
        call = Call(role, prompt, None, retry_level, schema, options={**self._own, **options})
        return self._transport.answer(call)

    @overload
    def chat(
        self,
        messages: Sequence[Message],
        role: str,
        retry_level: int = 0,
        *,
        schema: type[ModelT],
        tools: Sequence[Mapping[str, Any]] = (),
        **options: Unpack[CallOptions],
    ) -> Answer[ModelT]: ...

    @overload
    def chat(
        self,
        messages: Sequence[Message],
        role: str,
        retry_level: int = 0,
        *,
        schema: Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
        **options: Unpack[CallOptions],
    ) -> Answer[Any]: ...

    def chat(
        self,
        messages: Sequence[Message],
        role: str,
        retry_level: int = 0,
        *,
        schema: type[SchemaModel] | Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
        **options: Unpack[CallOptions],
    ) -> Answer[Any]:
        """The next message of a conversation.

        ``messages``: ``{"role": …, "content": …}`` and so on, as the dialect has them. ``tools``:
        what the model may want called, as JSON. ``parsed`` is None where it wants that.
        """
        options = {**self._own, **options}
        call = Call(role, "", messages, retry_level, schema, tools, options=options)
        return self._transport.answer(call)

    def stream(
        self,
        prompt: str,
        role: str,
        retry_level: int = 0,
        *,
        schema: type[SchemaModel] | Mapping[str, Any] | None = None,
        **options: Unpack[CallOptions],
    ) -> Stream:
        """The answer to a prompt, as it comes. Asks nothing before it is entered or iterated."""
        options = {**self._own, **options}
        return self._transport.stream(
            Call(role, prompt, None, retry_level, schema, stream=True, options=options)
        )

    def stream_chat(
        self,
        messages: Sequence[Message],
        role: str,
        retry_level: int = 0,
        *,
        schema: type[SchemaModel] | Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
        **options: Unpack[CallOptions],
    ) -> Stream:
        """The next message of a conversation, as it comes; see ``chat`` and ``stream``."""
        options = {**self._own, **options}
        return self._transport.stream(
            Call(role, "", messages, retry_level, schema, tools, stream=True, options=options)
        )


class Client(Calls):
    """modelsplit, asked by code that waits. Threads may share one; close it, or use ``with``."""

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        *,
        admin_url: str | None = None,
        api_key: str | None = None,
        dialect: Dialect | str = Dialect.OLLAMA,
        read_timeout: float | None = READ_TIMEOUT,
        wait_if_busy: float = 0.0,
        http_client: httpx.Client | None = None,
    ) -> None:
        """Asks nobody anything yet. Raises ValueError for an address that is none.

        admin_url: where jobs are reported; by default the same host, the next port. api_key: where
        modelsplit wants one. dialect: ollama (``/api``) or openai (``/v1``). read_timeout: seconds
        of silence before modelsplit counts as gone; None: never. wait_if_busy: seconds, for calls
        that do not say, see :class:`CallOptions`. http_client: used instead of one of our own,
        which asks no HTTP proxy of the environment; it is then not closed here.
        """
        made = settings(base_url, admin_url, api_key, dialect, read_timeout, wait_if_busy)
        super().__init__(Transport(made, http_client))

    def job(self, job_id: str | None = None) -> Job:
        """A job, to be entered; without an id, of a new one. Raises ValueError for a bad id."""
        return Job(self._transport, jobs.checked_id(job_id))

    def close(self) -> None:
        """Close its connections, and end the streams that are still open."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Job(Calls):
    """A job: its calls, its tools, and its end, which is reported however it comes.

    An exception that leaves the ``with`` is why it failed, told by its class; ``fail`` says more.
    Reports that nobody takes are logged once, and fail nothing.
    """

    def __init__(self, transport: Transport, job_id: str) -> None:
        super().__init__(transport, job_id)
        self.id = job_id
        self._reached = True
        self._why: str | None = None

    def tool(self, name: str) -> Tool:
        """A tool at work, to be entered. ``name``: 1 to 64 letters, digits, ``. _ -``."""
        return Tool(name, self._tool_ended)

    def fail(self, why: str) -> None:
        """Have the job end as failed, in these words, although no exception leaves it."""
        self._why = why

    def __enter__(self) -> Self:
        self._reached = self._transport.report(jobs.started(self.id))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        *rest: object,
    ) -> None:
        why = self._why or (None if error is None else jobs.reason(error))
        self._transport.report(jobs.finished(self.id, why))

    def _tool_ended(self, name: str, seconds: float, ok: bool) -> None:
        # Where nobody was there a moment ago, only the job's end is worth another try.
        if self._reached:
            self._reached = self._transport.report(jobs.tool(self.id, name, seconds, ok=ok))


class Tool:
    """One use of a tool, from entering to leaving. An exception that leaves it is a failure."""

    def __init__(self, name: str, ended: Callable[[str, float, bool], None]) -> None:
        """``ended`` is told its name, the seconds it took, and whether it worked."""
        self._name = name
        self._ended = ended
        self._began = 0.0
        self._failed = False

    def fail(self) -> None:
        """Have it count as failed although no exception leaves it."""
        self._failed = True

    def __enter__(self) -> Self:
        self._began = clock.now()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._ended(self._name, clock.now() - self._began, kind is None and not self._failed)
