"""The server over real sockets: the official client, raw requests, limits, keys, who leaves early."""

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn")
openai = pytest.importorskip("openai")
import httpx2 as httpx  # noqa: E402
import regex  # noqa: E402
from served import Heard, serving  # noqa: E402

from langgraft.serving.generate import answer, chat_prompt, text_prompt  # noqa: E402
from langgraft.serving.model import LanguageModel  # noqa: E402
from langgraft.serving.models import open_model  # noqa: E402
from langgraft.serving.sampling import Sampling  # noqa: E402
from langgraft.serving.server import Limits  # noqa: E402

KEY = "sk-langgraft-4711-very-secret"
CHAT = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "The quick brown"}]
HEARD = Heard()


@pytest.fixture(scope="module")
def address(writer: Path, writer_gguf: Path) -> Iterator[str]:
    """One server with both models, which asks for a key."""
    with serving({"hub": writer, "gguf": writer_gguf}, api_key=KEY, log=HEARD) as at:
        yield at


@pytest.fixture(params=["hub", "gguf"])
def name(request: pytest.FixtureRequest) -> str:
    """Each model in turn."""
    return str(request.param)


@pytest.fixture(scope="module")
def client(address: str) -> Any:
    """The official client."""
    return openai.OpenAI(base_url=f"{address}/v1", api_key=KEY, max_retries=0, timeout=60)


@pytest.fixture(scope="module")
def local(writer: Path) -> LanguageModel:
    """The model itself, to compare with."""
    return open_model(str(writer), context=128, threads=1)


def post(address: str, body: Any, path: str = "/v1/completions", **headers: str) -> Any:
    """A raw request; a body that is no bytes is sent as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    told = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}", **headers}
    return httpx.post(address + path, content=data, headers=told, timeout=60)


def test_the_official_client_lists_models(client: Any) -> None:
    assert [model.id for model in client.models.list()] == ["hub", "gguf"]
    assert client.models.retrieve("gguf").object == "model"


def test_the_official_client_chats(client: Any, name: str, local: LanguageModel) -> None:
    wanted = answer(local, chat_prompt(local, CHAT), Sampling(max_tokens=20, temperature=0), chat=True)
    done = client.chat.completions.create(
        model=name, messages=CHAT, temperature=0, max_completion_tokens=20, logprobs=True, top_logprobs=2
    )
    assert done.choices[0].message.content == wanted.text
    assert done.choices[0].finish_reason == wanted.finish
    assert done.usage.prompt_tokens == len(chat_prompt(local, CHAT))
    assert done.usage.completion_tokens == len(wanted.tokens)
    logprobs = done.choices[0].logprobs.content
    assert b"".join(bytes(token.bytes) for token in logprobs).decode() == wanted.text
    assert all(token.logprob <= 0 and len(token.top_logprobs) == 2 for token in logprobs)
    assert all(token.top_logprobs[0].logprob == pytest.approx(token.logprob) for token in logprobs)


def test_the_official_client_streams_a_chat(client: Any, name: str) -> None:
    whole = client.chat.completions.create(model=name, messages=CHAT, temperature=0, max_tokens=20)
    stream = client.chat.completions.create(
        model=name, messages=CHAT, temperature=0, max_tokens=20, stream=True, logprobs=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    chunks = list(stream)
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert choices[0].delta.role == "assistant"
    assert "".join(choice.delta.content or "" for choice in choices) == whole.choices[0].message.content
    assert [choice.finish_reason for choice in choices if choice.finish_reason] == [whole.choices[0].finish_reason]
    assert chunks[-1].usage == whole.usage
    told = [token for choice in choices if choice.logprobs for token in choice.logprobs.content]
    assert len(told) == whole.usage.completion_tokens


def test_the_official_client_completes_and_streams_text(client: Any, name: str, local: LanguageModel) -> None:
    wanted = answer(local, text_prompt(local, "The quick"), Sampling(max_tokens=10, temperature=0)).text
    asked = {"model": name, "prompt": "The quick", "temperature": 0, "max_tokens": 10}
    done = client.completions.create(**asked, logprobs=2)
    assert done.choices[0].text == wanted
    legacy = done.choices[0].logprobs
    assert "".join(legacy.tokens) == wanted
    assert [wanted[at:].startswith(token) for at, token in zip(legacy.text_offset, legacy.tokens, strict=True)]
    assert all(len(rivals) == 2 for rivals in legacy.top_logprobs)
    assert "".join(chunk.choices[0].text for chunk in client.completions.create(**asked, stream=True)) == wanted
    stopped = client.completions.create(**asked, stop=[wanted[4:7]])
    assert stopped.choices[0].text == wanted[: wanted.find(wanted[4:7])]
    assert stopped.choices[0].finish_reason == "stop"


def test_prompts_are_scored_for_evaluation_harnesses(client: Any, name: str) -> None:
    done = client.completions.create(model=name, prompt="The quick brown", max_tokens=0, echo=True, logprobs=1)
    choice = done.choices[0]
    assert choice.text == "".join(choice.logprobs.tokens) == "The quick brown"
    assert choice.logprobs.token_logprobs[0] is None
    assert all(value < 0 for value in choice.logprobs.token_logprobs[1:])
    assert done.usage.completion_tokens == 0
    hindi = client.completions.create(model=name, prompt="नमस्ते", max_tokens=0, echo=True, logprobs=0).choices[0]
    assert hindi.text == "नमस्ते"
    assert client.completions.create(model=name, prompt="น้ำ", max_tokens=0, echo=True).choices[0].text == "น้ำ"


def test_several_prompts_and_answers_at_once(client: Any, name: str, local: LanguageModel) -> None:
    prompts = ["The quick", text_prompt(local, "Water boils")]
    single = [
        client.completions.create(model=name, prompt=p, max_tokens=6, temperature=0).choices[0].text for p in prompts
    ]
    ids = [text_prompt(local, "The quick"), prompts[1]]
    both = client.completions.create(model=name, prompt=ids, max_tokens=6, temperature=0, n=2)
    assert [choice.text for choice in both.choices] == [single[0], single[0], single[1], single[1]]
    hot = client.completions.create(model=name, prompt="The", max_tokens=12, temperature=2, seed=3, n=3)
    again = client.completions.create(model=name, prompt="The", max_tokens=12, temperature=2, seed=3, n=3)
    assert [c.text for c in hot.choices] == [c.text for c in again.choices]
    assert len({c.text for c in hot.choices}) == 3


def test_streams_hold_whole_graphemes_only(address: str, name: str) -> None:
    body = {"model": name, "prompt": "नमस्ते می‌خواهم", "max_tokens": 60, "temperature": 5, "seed": 1, "stream": True}
    lines = post(address, body).text.split("\n\n")
    parts = [json.loads(line[6:])["choices"][0]["text"] for line in lines if line.startswith("data: {")]
    whole = "".join(parts)
    assert [g for part in parts for g in regex.findall(r"\X", part)] == regex.findall(r"\X", whole)
    assert lines[-2:] == ["data: [DONE]", ""]


def test_events_are_lines_for_every_client() -> None:
    from langgraft.serving.server import _event

    event = _event({"text": "a\x85b\u2028c\u2029d\n香港"})
    assert event.splitlines() == [event.strip(), ""]
    assert json.loads(event[6:]) == {"text": "a\x85b\u2028c\u2029d\n香港"}


BAD: dict[str, tuple[Any, int, str]] = {
    "no JSON": (b"{", 400, "no JSON"),
    "no UTF-8": (b'"\xff"', 400, "no JSON"),
    "too deep": (b"[" * 100_000, 400, "no JSON"),
    "no object": ([1], 400, "must be a JSON object"),
    "no model": ({"prompt": "x"}, 400, "`model`"),
    "unknown model": ({"model": "gpt-9", "prompt": "x"}, 404, "there is no model `gpt-9` here; there is hub, gguf"),
    "unknown field": ({"model": "hub", "prompt": "x", "temprature": 1}, 400, "unknown field `temprature`"),
    "wrong type": ({"model": "hub", "prompt": "x", "max_tokens": "ten"}, 400, "`max_tokens`"),
    "out of range": ({"model": "hub", "prompt": "x", "temperature": -1}, 400, "`temperature`"),
    "not a number": (b'{"model": "hub", "prompt": "x", "temperature": NaN}', 400, "temperature"),
    "too many tokens": ({"model": "hub", "prompt": "x", "max_tokens": 65}, 400, "at most 64"),
    "too long": ({"model": "hub", "prompt": "water " * 200}, 400, "reads at most 128"),
    "too many prompts": ({"model": "hub", "prompt": ["x"] * 65}, 400, "1 to 64"),
    "no prompts": ({"model": "hub", "prompt": []}, 400, "1 to 64"),
    "ids out of range": ({"model": "hub", "prompt": [1, 99999]}, 400, "99999 is no id"),
    "no ids": ({"model": "hub", "prompt": [[]]}, 400, "there are none"),
    "half a character": (b'{"model": "hub", "prompt": "\\ud800"}', 400, "surrogates not allowed"),
    "unsupported": ({"model": "hub", "prompt": "x", "logit_bias": {"5": 1}}, 400, "`logit_bias` is not supported"),
    "body too large": (b" " * 1_000_001, 413, "longer than 1,000,000 bytes"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_refused_in_openais_shape(address: str, case: str) -> None:
    body, status, message = BAD[case]
    response = post(address, body)
    error = response.json()["error"]
    assert response.status_code == status, error
    assert message in error["message"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "Traceback" not in response.text


@pytest.mark.parametrize(
    "messages, message",
    [
        ([], "messages"),
        ([{"role": "user"}], "messages.0"),
        ([{"role": "wizard", "content": "x"}], "messages.0.role"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}], "messages.0"),
    ],
)
def test_conversations_that_make_no_sense_are_refused(address: str, messages: Any, message: str) -> None:
    response = post(address, {"model": "hub", "messages": messages}, "/v1/chat/completions")
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]


def test_the_wrong_door_is_told_in_the_same_shape(address: str) -> None:
    key = {"Authorization": f"Bearer {KEY}"}
    assert httpx.get(f"{address}/v1/nothing", headers=key).json()["error"]["message"].endswith("Not Found")
    assert httpx.get(f"{address}/v1/completions", headers=key).status_code == 405
    assert httpx.get(f"{address}/v1/models/none", headers=key).status_code == 404
    assert post(address, b"{}", **{"Content-Type": "text/plain"}).status_code == 415
    assert httpx.get(f"{address}/health").json() == {"status": "ok"}


def test_without_the_key_nothing_is_answered_and_the_key_reaches_no_log(address: str) -> None:
    for given in ("", "Bearer", "Bearer wrong", f"Basic {KEY}", f"Bearer {KEY}x"):
        response = httpx.get(f"{address}/v1/models", headers={"Authorization": given} if given else {})
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "invalid_api_key"
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{address}/v1", api_key="wrong", max_retries=0).models.list()
    httpx.get(f"{address}/v1/models?key={KEY}")
    assert any(line.startswith("GET /v1/models 401") for line in HEARD.lines)
    assert KEY not in "\n".join(HEARD.lines)


def test_other_names_of_this_machine_are_refused(address: str) -> None:
    """A page of another site that resolves its own name to 127.0.0.1 must not reach the server."""
    assert httpx.get(f"{address}/", headers={"Host": "evil.example:80"}).status_code == 403
    assert httpx.get(f"{address}/", headers={"Host": "[::1]:80"}).status_code == 200


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models that take their time over every token, and never end by themselves."""
    from langgraft.serving.hub import HubModel

    quick = HubModel.logits

    def logits(self: Any, ids: list[int], slot: int = 0) -> Any:
        time.sleep(0.03)
        return quick(self, ids, slot)

    monkeypatch.setattr(HubModel, "logits", logits)
    monkeypatch.setattr(HubModel, "ends", lambda _self, _token: False)


LONG = {"model": "m", "prompt": "The", "max_tokens": 100}


@pytest.mark.usefixtures("slow")
def test_a_full_line_is_told(writer: Path) -> None:
    limits = Limits(max_tokens=120, waiting=2)
    with serving({"m": writer}, slots=1, limits=limits) as at, ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda _: post(at, {**LONG, "max_tokens": 20}), range(8)))
        assert sorted(one.status_code for one in done) == [200] * 3 + [429] * 5
        refused = next(one for one in done if one.status_code == 429)
        assert refused.headers["Retry-After"]
        assert refused.json()["error"]["type"] == "rate_limit_error"


def _leave(url: str, body: Any) -> None:
    """Ask, wait a little, hang up."""
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as line:
        data = json.dumps(body).encode()
        head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        line.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        time.sleep(0.3)


@pytest.mark.usefixtures("slow")
def test_who_leaves_makes_room(writer: Path) -> None:
    with serving({"m": writer}, slots=1, limits=Limits(max_tokens=120, waiting=2)) as at:
        for stream in (True, False, True):
            _leave(at, {**LONG, "stream": stream})
        start = time.monotonic()
        assert post(at, {**LONG, "max_tokens": 1}).status_code == 200
        assert time.monotonic() - start < 2.5, "someone still waits for three answers of three seconds each"


def _read(url: str, body: Any, seen: list[str]) -> None:
    with httpx.Client(timeout=20) as client, client.stream("POST", url, json=body) as stream:
        lines = stream.iter_lines()
        while (line := next(lines, None)) is not None:
            seen.append(line)


def test_a_defect_is_logged_and_told_to_nobody(writer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from langgraft.serving.hub import HubModel

    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("inner workings")

    heard = Heard()
    with serving({"m": writer}, log=heard) as at:
        monkeypatch.setattr(HubModel, "logits", broken)
        body = {"model": "m", "prompt": "x", "max_tokens": 2}
        failed = post(at, body)
        assert failed.status_code == 500
        assert failed.json()["error"]["message"] == "the server failed on this request"
        seen: list[str] = []
        with pytest.raises(httpx.HTTPError):
            _read(f"{at}/v1/completions", {**body, "stream": True}, seen)
        assert any("the server failed" in line for line in seen)
        monkeypatch.undo()
        assert post(at, body).status_code == 200
    assert "inner workings" in "\n".join(heard.lines)
