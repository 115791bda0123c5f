"""What clients may ask, in the words of the OpenAI interface; anything else is refused by name."""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from langgraft.errors import InputError
from langgraft.serving.sampling import Sampling
from langgraft.tokenizer.template import Message

# Fields that clients send and that change nothing here.
_IGNORED = frozenset(("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"))
# Fields that would change the answer: silence would be a lie. The value given is the one that changes nothing.
_UNSUPPORTED: dict[str, Any] = {
    "tools": [],
    "tool_choice": "none",
    "functions": [],
    "logit_bias": {},
    "response_format": {"type": "text"},
    "modalities": ["text"],
    "audio": None,
    "suffix": None,
    "best_of": 1,
    "prediction": None,
    "reasoning_effort": None,
    "parallel_tool_calls": False,
}


class ApiError(Exception):
    """A refusal in the shape that OpenAI clients know."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None, kind: str = ""
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.kind = kind or ("invalid_request_error" if status < 500 else "server_error")

    def body(self) -> dict[str, Any]:
        """`{"error": {"message", "type", "param", "code"}}`."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Part(_Strict):
    type: Literal["text"]
    text: str


class _Message(_Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_Part]
    name: str | None = None

    def plain(self) -> Message:
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class _StreamOptions(_Strict):
    include_usage: bool = False
    include_obfuscation: bool = False


class _Shared(_Strict):
    model: str
    stream: bool | None = False
    stream_options: _StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=16)] | None = 1
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    temperature: Annotated[float, Field(ge=0, le=10)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(ge=0.1, le=10)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    seed: int | None = None
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None

    def sampling(self, *, max_tokens: int, logprobs: int | None) -> Sampling:
        """The options of generation; OpenAI's defaults where nothing is said."""
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        names = ("temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty")
        said = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return Sampling(
            max_tokens=max_tokens, seed=self.seed, stop=stop, logprobs=logprobs, top_k=max(self.top_k or 0, 0), **said
        )

    def wants_usage(self) -> bool:
        """Whether the stream ends with the count of tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatRequest(_Shared):
    """Body of POST /v1/chat/completions."""

    messages: Annotated[list[_Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=0)] | None = None
    logprobs: bool | None = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    def wanted_tokens(self) -> int | None:
        """Tokens asked for, under either name."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens

    def wanted_logprobs(self) -> int | None:
        """How many rivals of each token to tell; None: no log-probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None

    def conversation(self) -> list[Message]:
        """The messages, text only."""
        return [message.plain() for message in self.messages]


class CompletionRequest(_Shared):
    """Body of POST /v1/completions."""

    prompt: str | list[str] | list[int] | list[list[int]] = ""
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: bool | None = False

    def wanted_tokens(self) -> int | None:
        """Tokens asked for; OpenAI gives 16 where nothing is said."""
        return 16 if self.max_tokens is None else self.max_tokens

    def wanted_logprobs(self) -> int | None:
        """How many rivals of each token to tell; None: no log-probabilities."""
        return self.logprobs

    def prompts(self) -> list[str | list[int]]:
        """Every prompt, as text or as ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if self.prompt and isinstance(self.prompt[0], int):
            return [[int(i) for i in self.prompt]]  # type: ignore[arg-type]
        return list(self.prompt)  # type: ignore[arg-type]


T = TypeVar("T", bound=_Shared)


def parse(kind: type[T], body: Any) -> T:
    """A request of that kind.

    Raises:
        ApiError: 400, with the field and what is wrong with it.
    """
    if not isinstance(body, dict):
        raise ApiError(400, "the body must be a JSON object")
    for name, harmless in _UNSUPPORTED.items():
        if name in body and body[name] not in (None, harmless):
            raise ApiError(400, f"`{name}` is not supported by this server", param=name, code="unsupported_parameter")
    kept = {key: value for key, value in body.items() if key not in _IGNORED and key not in _UNSUPPORTED}
    try:
        return kind.model_validate(kept)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        # Of the members of a union, the user needs the field alone.
        where = ".".join(str(part) for part in first["loc"] if isinstance(part, int) or str(part).isidentifier())
        if first["type"] == "extra_forbidden":
            raise ApiError(400, f"unknown field `{where}`", param=where, code="unknown_parameter") from error
        raise ApiError(400, f"`{where}`: {first['msg']}", param=where) from error


def refused(error: InputError) -> ApiError:
    """An InputError of generation as the client sees it."""
    code = "context_length_exceeded" if "the model reads at most" in str(error) else None
    return ApiError(400, str(error), code=code)
