"""Scores over HTTP: those of the model behind a real `langgraft serve`, and one sentence for every refusal."""

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from command import ROOT, langgraft
from pico import CANTONESE, ENGLISH

from langgraft.errors import InputError, ModelError
from langgraft.evaluation.bpb import score_documents
from langgraft.evaluation.endpoint_scorer import EndpointScorer
from langgraft.evaluation.torch_scorer import TorchScorer

sys.path.append(str(ROOT / "tests" / "serving"))  # the server of those tests
TEXTS = [CANTONESE[0], ENGLISH[2], "a", "é"]


@pytest.fixture(scope="module")
def address(pico: Path) -> Iterator[str]:
    pytest.importorskip("uvicorn")
    from served import serving

    with serving({"pico": pico}) as url:
        yield f"{url}/v1"


def test_a_server_gives_the_bits_of_its_model(address: str, pico: Path) -> None:
    remote, local = EndpointScorer(address), TorchScorer(pico, device="cpu", threads=1)
    assert remote.model == "pico"
    ours, theirs = (score_documents(scorer, TEXTS) for scorer in (remote, local))
    np.testing.assert_allclose(ours.bits, theirs.bits, rtol=1e-4)
    np.testing.assert_array_equal(ours.tokens, theirs.tokens)
    pairs = [("The quick", " brown fox"), ("The quick", " red fox"), ("", "Water")]
    np.testing.assert_allclose(remote.continuations(pairs), local.continuations(pairs), rtol=1e-3)


def test_long_documents_are_read_in_parts(address: str, pico: Path) -> None:
    remote, local = EndpointScorer(address, "pico"), TorchScorer(pico, device="cpu", threads=1)
    text = CANTONESE[0] * 2 + ENGLISH[2]
    ours = score_documents(remote, [text], length=16, stride=8)
    whole = score_documents(local, [text])
    # Cut elsewhere, a text has some tokens more or less, and each part has less before it.
    assert abs(int(ours.tokens[0] - whole.tokens[0])) <= 6
    assert ours.bits[0] == pytest.approx(whole.bits[0], rel=0.1)


def test_evaluate_takes_an_endpoint_beside_a_folder(address: str, pico: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(TEXTS[:3]), encoding="utf-8")
    done = langgraft(
        "evaluate", "--models", pico, f"served={address}#pico", f"again={pico}",
        "--target", text, "--language", "yue", "-o", tmp_path / "out", "--threads", 1, "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert [one["kind"] for one in found["models"]] == ["folder", "endpoint", "folder"]
    changes = found["bits_per_byte"]["target"]["changes"]
    assert changes["served"]["mean"] == pytest.approx(0, abs=1e-4)
    assert (changes["again"]["mean"], changes["again"]["verdict"]) == (0, "no measurable difference")
    assert "tokens" not in found
    assert "no measurable difference" in done.err


class Odd(BaseHTTPRequestHandler):
    """A server that is none of ours: `answers` by path."""

    answers: ClassVar[dict[str, tuple[int, Any]]] = {}

    def do_GET(self) -> None:
        """Answer."""
        status, body = self.answers[self.path]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def do_POST(self) -> None:
        """Answer."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def odd() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Odd)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


MODELS = (200, {"data": [{"id": "one"}]})


@pytest.mark.parametrize(
    "models, completions, sentence",
    [
        ((200, {"data": [{"id": "a"}, {"id": "b"}]}), (200, {}), "serves a, b; name one, as in .*#NAME"),
        ((200, {"data": []}), (200, {}), "serves nothing; name one"),
        ((404, {"error": "no"}), (200, {}), "/models answers 404"),
        (MODELS, (200, {}), "answers in a shape that is not OpenAI's"),
        (MODELS, (200, {"choices": [{"logprobs": None}]}), "gives no log-probabilities of a prompt"),
        (MODELS, (200, {"choices": [{"logprobs": {"tokens": ["<|endoftext|>"], "token_logprobs": [None, None]}}]}),
         "gives no log-probabilities of a prompt"),
        (MODELS, (401, {"error": "key"}), "/completions answers 401"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_said(odd: str, models: Any, completions: Any, sentence: str) -> None:
    Odd.answers = {"/models": models, "/completions": completions}
    with pytest.raises(InputError, match=sentence):
        EndpointScorer(odd)


def test_gaps_and_silence_are_said(odd: str) -> None:
    logprobs = {"tokens": ["<|endoftext|>", "a"], "token_logprobs": [None, None]}
    Odd.answers = {"/models": MODELS, "/completions": (200, {"choices": [{"logprobs": logprobs}]})}
    with pytest.raises(ModelError, match="left out log-probabilities"):
        score_documents(EndpointScorer(odd), ["a"])
    with pytest.raises(ModelError, match="does not answer as an OpenAI-compatible server"):
        EndpointScorer("http://127.0.0.1:9/v1", "one")


@pytest.mark.parametrize("names, first", [(["<s>", "a"], ""), (["a"], "\n")])
def test_what_stands_first_is_found_out(odd: str, names: list[str], first: str) -> None:
    logprobs = {"tokens": names, "token_logprobs": [None] + [-1.0] * (len(names) - 1)}
    Odd.answers = {"/models": MODELS, "/completions": (200, {"choices": [{"logprobs": logprobs}]})}
    assert EndpointScorer(odd)._first == first
