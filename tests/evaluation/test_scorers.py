"""Models of every kind give the same bits; contexts that are shared change nothing; a killed evaluation goes on."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pico import CANTONESE, ENGLISH, pico_model, pico_tokenizer
from tokenizers import Tokenizer, decoders, models
from tokenizers.trainers import BpeTrainer
from torch import nn

from langgraft.errors import InputError
from langgraft.evaluation.bpb import score, score_documents
from langgraft.evaluation.likelihood import Scorer
from langgraft.evaluation.minimal_pairs import MinimalPairs
from langgraft.evaluation.models import Measured, folder_of, identity_of, kind_of, named, open_scorer
from langgraft.evaluation.suite import BitsPerByte, Way, evaluate
from langgraft.evaluation.torch_scorer import TorchScorer
from langgraft.progress import Log, Progress
from langgraft.tokenizer.files import load, piece_bytes, token_bytes

TEXTS = [*CANTONESE, *ENGLISH, "a", " ".join(ENGLISH)]
SHOTS = "English: It rains.\nCantonese: 落緊雨。\n\nEnglish: "


@pytest.fixture(scope="module")
def plain(pico: Path) -> Iterator[Scorer]:
    with open_scorer(Measured("base", str(pico), "folder"), device="cpu", threads=1) as scorer:
        yield scorer


def pairs() -> list[tuple[str, str]]:
    """Contexts that share a beginning, each with several texts; one of its own; none."""
    found = [(f"{SHOTS}{text}\nCantonese:", f" {option}") for text in ENGLISH[:3] for option in CANTONESE[:4]]
    return [*found, ("The quick", " brown fox"), ("", "Water"), ("", CANTONESE[0]), ("我哋", "今日去邊度")]


def test_a_text_after_a_context_costs_what_it_adds(plain: Scorer) -> None:
    wanted = [(context, text) for context, text in pairs() if context]
    whole = plain.continuations([("", context + text) for context, text in wanted])
    before = plain.continuations([("", context) for context, _ in wanted])
    after = plain.continuations(wanted)
    for (_, text), both, one, found in zip(wanted, whole, before, after, strict=True):
        assert found[0] == pytest.approx(both[0] - one[0], rel=1e-4), text
        assert found[1] == both[1] - one[1]


def test_reading_shared_contexts_once_changes_nothing(pico: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_scorer(Measured("base", str(pico), "folder"), device="cpu", threads=1) as scorer:
        together = scorer.continuations(pairs())
        alone = [scorer.continuations([pair])[0] for pair in pairs()]
        monkeypatch.setattr("langgraft.evaluation.torch_scorer.SHARED_PREFIX", 10_000)
        apart = scorer.continuations(pairs())
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    np.testing.assert_allclose(together, apart, rtol=1e-5)


def test_gguf_gives_the_same_bits(plain: Scorer, pico: Path, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    from langgraft.exporting.gguf_writer import write_gguf

    write_gguf(pico, tmp_path / "pico.gguf", quant="f32", name="pico")
    one = named([str(tmp_path / "pico.gguf")])[0]
    assert one.kind == "gguf"
    with open_scorer(one, threads=1) as scorer:
        ours = score_documents(scorer, TEXTS, length=64, stride=32)
        also = scorer.continuations(pairs())
        with pytest.raises(InputError, match="fewer than the window of 600"):
            score_documents(scorer, TEXTS, length=600)
    theirs = score_documents(plain, TEXTS, length=64, stride=32)
    np.testing.assert_allclose(ours.bits, theirs.bits, rtol=1e-3)
    np.testing.assert_array_equal(ours.tokens, theirs.tokens)
    np.testing.assert_allclose(also, plain.continuations(pairs()), rtol=1e-3)


def test_an_adapter_is_measured_as_what_it_makes_of_its_base(pico: Path, tmp_path: Path) -> None:
    from langgraft.training.adapter import write_adapter
    from langgraft.training.device import load_model

    model = load_model(pico, torch.device("cpu"))
    rows = model.get_input_embeddings().weight
    with torch.no_grad():
        rows[300:] += 0.5
    folder = write_adapter(tmp_path / "adapter", model, None, first_row=300, source=pico, base=str(pico))
    wanted = score(pico, TEXTS, model=model, device="cpu", threads=1)
    one = named([f"mine={folder}"])[0]
    assert (one.name, one.kind) == ("mine", "adapter")
    with open_scorer(one, device="cpu", threads=1) as scorer:
        found = score_documents(scorer, TEXTS)
        assert scorer.kind == "adapter"
    np.testing.assert_allclose(found.bits, wanted.bits, rtol=1e-6)
    assert found.bits_per_byte != pytest.approx(score(pico, TEXTS, device="cpu", threads=1).bits_per_byte, rel=1e-4)


class Killed(Log):
    """Ends the process it is in, as a signal would, after some reports."""

    def __init__(self, reports: int) -> None:
        super().__init__(quiet=True)
        self.left = reports

    def progress(self, what: str, total: int, **how: Any) -> Progress:
        assert 0 <= how["done"] <= total
        return super().progress(what, total, **{**how, "every": 0.0})

    def say(self, text: str) -> None:
        assert "left" in text
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("reports", [0, 1, 3])
def test_what_is_killed_goes_on_to_the_same_bits(pico: Path, tmp_path: Path, reports: int) -> None:
    scorer = TorchScorer(pico, device="cpu", threads=1, batch_tokens=120)
    way = {"length": 32, "stride": 16, "keep": tmp_path / "scores.jsonl", "identity": "pico"}
    whole = score_documents(scorer, TEXTS, **{**way, "keep": tmp_path / "whole.jsonl"})
    with pytest.raises(KeyboardInterrupt):
        score_documents(scorer, TEXTS, log=Killed(reports), **way)
    kept = (tmp_path / "scores.jsonl").read_bytes()
    assert 1 < kept.count(b"\n") <= len(TEXTS)
    (tmp_path / "scores.jsonl").write_bytes(kept[:-3])  # a kill in the middle of a line
    again = score_documents(scorer, TEXTS, **way)
    np.testing.assert_array_equal(again.bits, whole.bits)
    np.testing.assert_array_equal(again.tokens, whole.tokens)
    done = score_documents(scorer, TEXTS, log=Killed(0), **way)  # nothing left to read, so nothing to report
    np.testing.assert_array_equal(done.bits, whole.bits)


@pytest.mark.parametrize("change", [{"identity": "other"}, {"length": 48}, {"stride": 8}])
def test_scores_of_something_else_are_not_gone_on_with(pico: Path, tmp_path: Path, change: dict[str, object]) -> None:
    scorer = TorchScorer(pico, device="cpu", threads=1)
    way = {"length": 32, "stride": 16, "keep": tmp_path / "scores.jsonl", "identity": "pico"}
    score_documents(scorer, TEXTS[:2], **way)
    with pytest.raises(InputError, match=r"scores\.jsonl was begun with other settings \(.*\); delete it"):
        score_documents(scorer, TEXTS[:2], **{**way, **change})
    with pytest.raises(InputError, match=r"other settings \(texts\)"):
        score_documents(scorer, TEXTS[:3], **way)


def test_names_with_dots_keep_their_scores_apart(pico: Path, tmp_path: Path) -> None:
    one = named([f"model-v1.2={pico}"])
    asked = [BitsPerByte("target", CANTONESE[:2]), BitsPerByte("source", ENGLISH[:2])]
    pairs_asked = MinimalPairs("blimp", [("the dog", "dog the")] * 2)
    evaluate(one, [*asked, pairs_asked], tmp_path, way=Way(100), device="cpu", threads=1)
    assert {path.name for path in tmp_path.iterdir()} == {
        "model-v1.2-bits_per_byte-target.jsonl",
        "model-v1.2-bits_per_byte-source.jsonl",
        "model-v1.2-minimal_pairs-blimp.json",
    }
    with pytest.raises(InputError, match="there is nothing to evaluate"):
        evaluate(one, [], tmp_path)


def test_models_are_known_by_what_they_are(pico: Path, tmp_path: Path) -> None:
    assert [one.name for one in named([str(pico), f"mine={pico}"])] == ["base", "mine"]
    assert [one.name for one in named([str(pico), f"a={pico}", "http://127.0.0.1:8000/v1#yue"])] == ["base", "a", "yue"]
    assert kind_of("http://127.0.0.1:8000/v1#yue") == "endpoint"
    with pytest.raises(InputError, match="two models are called `a`; give them names"):
        named([f"a={pico}", f"a={pico}"])
    one, other = named([str(pico), str(pico_model(tmp_path / "other", seed=1))])
    assert identity_of(one) == identity_of(named([str(pico)])[0])
    assert identity_of(one) != identity_of(other)
    with pytest.raises(InputError, match="needs the model's own files"), folder_of(named(["http://x/v1#a"])[0]):
        pass


class UnigramBytes(nn.Module):
    """Every byte has probability 1/512 whatever stands before it, however tokens cut the text; the rest is one id's."""

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        shares = torch.tensor([512.0**-size if size else 0.0 for size in sizes], dtype=torch.float64)
        shares[0] = 1 - shares.sum()
        self.logits = nn.Parameter(shares.clamp_min(1e-300).log().float())

    def forward(self, input_ids: torch.Tensor, use_cache: bool = False):  # type: ignore[no-untyped-def]  # noqa: ARG002
        from types import SimpleNamespace

        return SimpleNamespace(logits=self.logits.expand(*input_ids.shape, -1))


def unigram(folder: Path) -> UnigramBytes:
    """That model for the tokenizer in a folder, whose id 0 stands for no text."""
    tokenizer = load(folder)
    spell = token_bytes if "ByteLevel" in tokenizer.to_str() else piece_bytes
    names = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    return UnigramBytes([0, *(len(spell(name)) for name in names[1:])])


@pytest.fixture(scope="module")
def cuts(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, UnigramBytes]]:
    """Tokenizers that cut bytes in different ways: bytes alone, merges of them, characters with byte fallback."""
    root = tmp_path_factory.mktemp("cuts")
    folders = [pico_tokenizer(root / "bytes", vocab_size=259), pico_tokenizer(root / "merges", vocab_size=600)]
    fallback = Tokenizer(models.BPE(byte_fallback=True, unk_token="<|endoftext|>"))
    fallback.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    special = ["<|endoftext|>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = BpeTrainer(vocab_size=400, special_tokens=special[:1], show_progress=False)
    fallback.train_from_iterator(CANTONESE[:2] + ENGLISH[:2], trainer)
    data = json.loads(fallback.to_str())
    for name in special[1:]:
        data["model"]["vocab"].setdefault(name, len(data["model"]["vocab"]))
    (root / "fallback").mkdir()
    (root / "fallback" / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    return [(folder, unigram(folder)) for folder in (*folders, root / "fallback")]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="▁"), min_size=1), min_size=1, max_size=5))
def test_bits_do_not_hang_on_how_bytes_are_cut(cuts: list[tuple[Path, UnigramBytes]], texts: list[str]) -> None:
    for folder, model in cuts:
        found = score(folder, texts, model=model, device="cpu", threads=1, length=16, stride=8)
        np.testing.assert_allclose(found.bits, 9.0 * found.bytes, rtol=1e-6)
        assert found.bits_per_byte == pytest.approx(9.0, rel=1e-6)


def test_the_tokenizers_of_that_property_do_cut_differently(cuts: list[tuple[Path, UnigramBytes]]) -> None:
    text = [ENGLISH[0] + CANTONESE[0] + "🙂ก็"]
    counts = {int(score(folder, text, model=model, device="cpu", threads=1).tokens[0]) for folder, model in cuts}
    assert len(counts) == 3
