"""The OpenAI-compatible server: models, completions and chat, whole or streamed, within limits.

Every refusal has the shape `{"error": {...}}` that OpenAI clients know, and the status it deserves; a defect is
logged here and told to nobody.
"""

import asyncio
import contextlib
import hmac
import json
import time
import traceback
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from langgraft.errors import InputError
from langgraft.progress import Log
from langgraft.serving.answers import Shape, usage
from langgraft.serving.generate import Piece, Token, chat_prompt, check_room, text_prompt
from langgraft.serving.model import LanguageModel
from langgraft.serving.requests import ApiError, ChatRequest, CompletionRequest, parse, refused
from langgraft.serving.worker import Job, QueueFullError, Worker

LOOPBACK = ("127.0.0.1", "::1", "localhost")
_GONE = 499  # the client left before the answer; nobody reads this
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@dataclass(frozen=True)
class Limits:
    """What one request may ask for, and how many may wait for a model."""

    body_bytes: int = 1_000_000
    max_tokens: int = 1024
    waiting: int = 64


def application(
    workers: Mapping[str, Worker],
    *,
    limits: Limits | None = None,
    api_key: str | None = None,
    local: bool = True,
    page: str | None = None,
    log: Log | None = None,
) -> Starlette:
    """The server as an ASGI application; it closes the workers when it ends.

    Args:
        workers: model name -> its worker.
        api_key: what `Authorization: Bearer …` must carry; None: anybody may ask.
        local: answer only to the names of this machine, so that no web page reaches it under a name of its own
            (DNS rebinding).
        page: HTML of `/`.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        for worker in workers.values():
            await run_in_threadpool(worker.close)

    desk = _Desk(workers, limits or Limits())
    routes = [
        Route("/health", desk.health),
        Route("/v1/models", desk.models),
        Route("/v1/models/{name:path}", desk.model),
        Route("/v1/chat/completions", desk.chat, methods=["POST"]),
        Route("/v1/completions", desk.completions, methods=["POST"]),
    ]
    if page is not None:
        routes.append(Route("/", lambda _request: HTMLResponse(page, headers=_PAGE_HEADERS)))
    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={ApiError: _api_error, HTTPException: _http_error, InputError: _input_error},
    )
    app.add_middleware(_Guard, api_key=api_key, local=local, log=log or Log())
    return app


def _error(error: ApiError) -> JSONResponse:
    headers = {"Retry-After": "2"} if error.status == 429 else {}
    return JSONResponse(error.body(), error.status, headers)


async def _api_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return _error(error)


async def _input_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, InputError)
    return _error(refused(error))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    answer = _error(ApiError(error.status_code, f"{request.method} {request.url.path}: {error.detail}"))
    answer.headers.update(error.headers or {})
    return answer


class _Guard:
    """Who may come in, one line of log per request (never a header, body or query), and no traceback to anybody."""

    def __init__(self, app: ASGIApp, *, api_key: str | None, local: bool, log: Log) -> None:
        self.app, self.local, self.log = app, local, log
        self.key = api_key.encode() if api_key is not None else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.monotonic(), 0

        async def noting(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            refusal = self._refusal(scope)
            if refusal is not None:
                await _error(refusal)(scope, receive, noting)
            else:
                await self.app(scope, receive, noting)
        except Exception:  # a defect: told to the log, while the client only learns that there is one
            self.log.say(traceback.format_exc())
            if not status:
                await _error(ApiError(500, "the server failed on this request"))(scope, receive, noting)
        path = scope.get("raw_path", b"").decode("latin-1").partition("?")[0]
        self.log.say(f"{scope['method']} {path[:200]} {status} {time.monotonic() - start:.2f} s")

    def _refusal(self, scope: Scope) -> ApiError | None:
        headers = dict(reversed(scope["headers"]))
        host = headers.get(b"host", b"").decode("latin-1")
        name = host.partition("]")[0].strip("[") if host.startswith("[") else host.partition(":")[0]
        if self.local and name not in LOOPBACK:
            return ApiError(403, "this server answers only under the name localhost or 127.0.0.1")
        if self.key is not None and scope["path"].startswith("/v1/"):
            kind, _, given = headers.get(b"authorization", b"").partition(b" ")
            if kind.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self.key):
                return ApiError(401, "a valid API key is needed: Authorization: Bearer …", code="invalid_api_key")
        return None


class _Desk:
    """Takes requests for some models."""

    def __init__(self, workers: Mapping[str, Worker], limits: Limits) -> None:
        self.workers, self.limits, self.started = workers, limits, int(time.time())

    async def health(self, _request: Request) -> Response:
        """Alive; no key needed."""
        return JSONResponse({"status": "ok"})

    async def models(self, _request: Request) -> Response:
        """The list of models."""
        return JSONResponse({"object": "list", "data": [self._card(name) for name in self.workers]})

    async def model(self, request: Request) -> Response:
        """One of them."""
        name = request.path_params["name"]
        self._worker(name)
        return JSONResponse(self._card(name))

    def _card(self, name: str) -> dict[str, Any]:
        model = self.workers[name].model
        facts = {"backend": model.backend, "context": model.context, "chat": model.template is not None}
        return {"id": name, "object": "model", "created": self.started, "owned_by": "langgraft", "langgraft": facts}

    def _worker(self, name: str) -> Worker:
        if name not in self.workers:
            have = ", ".join(self.workers)
            raise ApiError(
                404, f"there is no model `{name}` here; there is {have}", param="model", code="model_not_found"
            )
        return self.workers[name]

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        asked = parse(ChatRequest, await self._body(request))
        worker = self._worker(asked.model)
        prompt = await run_in_threadpool(chat_prompt, worker.model, asked.conversation())
        return await self._answer(request, asked, worker, [prompt])

    async def completions(self, request: Request) -> Response:
        """POST /v1/completions."""
        asked = parse(CompletionRequest, await self._body(request))
        worker = self._worker(asked.model)
        prompts = [await run_in_threadpool(_ids, worker.model, prompt) for prompt in asked.prompts()]
        return await self._answer(request, asked, worker, prompts)

    async def _body(self, request: Request) -> Any:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            # Also what keeps other sites' pages out: a browser sends JSON across sites only if we allow it.
            raise ApiError(415, "send JSON, with the header Content-Type: application/json")
        data = bytearray()
        async for chunk in request.stream():
            data += chunk
            if len(data) > self.limits.body_bytes:
                raise ApiError(413, f"the body is longer than {self.limits.body_bytes:,} bytes")
        try:
            value = json.loads(bytes(data))
            if rb"\u" in data:
                json.dumps(value, ensure_ascii=False).encode()  # fails on half a surrogate pair, which no text has
        except (ValueError, RecursionError) as error:
            raise ApiError(400, f"the body is no JSON: {error}") from error
        return value

    async def _answer(
        self,
        request: Request,
        asked: ChatRequest | CompletionRequest,
        worker: Worker,
        prompts: Sequence[list[int]],
    ) -> Response:
        most = self.limits.max_tokens
        wanted = asked.wanted_tokens()
        if wanted is not None and wanted > most:
            raise ApiError(400, f"max_tokens is {wanted:,}, and this server gives at most {most:,}", param="max_tokens")
        count = len(prompts) * (asked.n or 1)
        if not 0 < count <= worker.waiting:
            raise ApiError(400, f"the request asks for {count} texts; this server takes 1 to {worker.waiting} at once")
        for prompt in prompts:
            check_room(worker.model, prompt)
        chat = isinstance(asked, ChatRequest)
        logprobs = asked.wanted_logprobs()
        sampling = asked.sampling(max_tokens=most if wanted is None else wanted, logprobs=logprobs)
        echo = isinstance(asked, CompletionRequest) and bool(asked.echo)
        exchange = _Exchange()
        for i in range(count):
            # A seed makes an answer repeatable, not the n answers alike.
            seed = None if asked.seed is None else asked.seed + i % (asked.n or 1)
            exchange.add(prompts[i // (asked.n or 1)], replace(sampling, seed=seed), chat=chat, echo=echo)
        try:
            worker.submit(exchange.jobs)
        except QueueFullError as error:
            raise ApiError(429, str(error), code="queue_full", kind="rate_limit_error") from error
        shape = Shape(asked.model, chat, logprobs is not None)
        read = sum(map(len, prompts))
        if asked.stream:
            lines = _lines(exchange, shape, read if asked.wants_usage() else None)
            return StreamingResponse(lines, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        return await _whole(request, exchange, shape, read)


def _ids(model: LanguageModel, prompt: str | list[int]) -> list[int]:
    """Ids of a prompt given as text or as ids."""
    if isinstance(prompt, str):
        return text_prompt(model, prompt)
    wrong = [i for i in prompt if not 0 <= i < model.tokens]
    if wrong or not prompt:
        what = f"{wrong[0]} is no id of it" if wrong else "there are none"
        raise ApiError(400, f"prompt: the model has ids from 0 to {model.tokens - 1:,}; {what}", param="prompt")
    return prompt


class _Exchange:
    """The jobs of one request, and what the worker says about them, handed to the event loop."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self._loop = asyncio.get_running_loop()
        self._said: asyncio.Queue[tuple[int, Piece | Exception]] = asyncio.Queue()

    def add(self, prompt: list[int], sampling: Any, *, chat: bool, echo: bool) -> None:
        """One more text to write."""
        index = len(self.jobs)

        def deliver(said: Piece | Exception) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the server has gone
                self._loop.call_soon_threadsafe(self._said.put_nowait, (index, said))

        self.jobs.append(Job(prompt, sampling, deliver, chat=chat, echo=echo))

    async def pieces(self) -> AsyncIterator[tuple[int, Piece]]:
        """Every piece with the number of its text, until all are finished."""
        left = len(self.jobs)
        while left:
            index, said = await self._said.get()
            if isinstance(said, Exception):
                raise said
            yield index, said
            left -= said.finish is not None

    def echoed(self) -> int:
        """Tokens among those that come which are the prompts' own."""
        return sum(len(job.prompt) for job in self.jobs if job.echo and job.sampling.logprobs is not None)

    def cancel(self) -> None:
        """Nobody waits any more; finished jobs do not mind."""
        for job in self.jobs:
            job.cancel()


async def _whole(request: Request, exchange: _Exchange, shape: Shape, read: int) -> Response:
    """The answer at once; given up where the client leaves."""
    collecting = asyncio.ensure_future(_collect(exchange, shape, read))
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({collecting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return JSONResponse(collecting.result()) if collecting.done() else Response(status_code=_GONE)
    finally:
        exchange.cancel()
        collecting.cancel()
        leaving.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue


async def _collect(exchange: _Exchange, shape: Shape, read: int) -> dict[str, Any]:
    count = len(exchange.jobs)
    texts, tokens, finishes = [""] * count, [list[Token]() for _ in range(count)], ["length"] * count
    async for index, piece in exchange.pieces():
        texts[index] += piece.text
        tokens[index] += piece.tokens
        finishes[index] = piece.finish or finishes[index]
    return {**shape.whole(texts, tokens, finishes), "usage": usage(read, sum(map(len, tokens)) - exchange.echoed())}


async def _lines(exchange: _Exchange, shape: Shape, read: int | None) -> AsyncIterator[str]:
    """The answer as server-sent events; tokens whose text is held back come with the text that follows."""
    count, written = len(exchange.jobs), -exchange.echoed()
    waiting, offsets = [list[Token]() for _ in range(count)], [0] * count
    try:
        for index in range(count if shape.chat else 0):
            yield _event(shape.opening(index))
        async for index, piece in exchange.pieces():
            waiting[index] += piece.tokens
            written += len(piece.tokens)
            if piece.text or piece.finish:
                yield _event(shape.chunk(index, piece.text, waiting[index], offsets[index], piece.finish))
                offsets[index] += len(piece.text)
                waiting[index] = []
        if read is not None:
            yield _event(shape.usage_chunk(usage(read, written)))
        yield "data: [DONE]\n\n"
    except InputError as error:
        yield _event(refused(error).body())
    except Exception:
        # The status is sent already, so the stream itself must say that it broke off.
        yield _event(ApiError(500, "the server failed on this request").body())
        raise
    finally:
        exchange.cancel()


def _event(value: dict[str, Any]) -> str:
    text = json.dumps(value, ensure_ascii=False)
    # Some clients take these for ends of lines, which the format does not.
    for char in "\x85\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return f"data: {text}\n\n"
