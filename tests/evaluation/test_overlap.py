"""Scores of overlap: those of sacrebleu and rouge-score, in units fair to every script, with paired intervals."""

import socket
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pico import CANTONESE, ENGLISH

from langgraft.errors import InputError
from langgraft.evaluation.overlap import (
    BleuTokenizer,
    bleu,
    bleu_tokenizer,
    check_tokenizer,
    chrf,
    common_length,
    measure_overlap,
    rouge_l,
    units,
)
from langgraft.recipe_evaluation import TranslationSection
from langgraft.text import language, languages

YUE, EN, TH, HI = (language(code) for code in ("yue", "en", "th", "hi"))
NEAR = ["The quick brown fox jumped over a lazy dog, and slept.", "", *ENGLISH[2:]]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_corpus_scores_are_those_of_sacrebleu() -> None:
    from sacrebleu.metrics import BLEU, CHRF

    metric = CHRF()
    assert chrf(ENGLISH).of(NEAR) == pytest.approx(metric.corpus_score(NEAR, [ENGLISH]).score)
    assert chrf(ENGLISH).signature == str(metric.get_signature())
    for references, texts, of, tok in ((ENGLISH, NEAR, EN, "13a"), (CANTONESE, CANTONESE[::-1], YUE, "zh")):
        metric = BLEU(tokenize=tok, force=True)
        assert bleu(references, of).of(texts) == pytest.approx(metric.corpus_score(texts, [references]).score)
        assert f"tok:{tok}" in bleu(references, of).signature
        assert "nrefs:1" in bleu(references, of).signature


def test_every_language_has_a_tokenizer_that_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for of in languages().values():
        check_tokenizer(bleu_tokenizer(of))
        assert bleu(["一 a"], of).of(["一 a"]) >= 0
    wanted = {
        "zh": "zh",
        "yue": "zh",
        "th": "char",
        "my": "char",
        "hi": "intl",
        "fa": "intl",
        "am": "intl",
        "ru": "13a",
    }
    assert {code: bleu_tokenizer(language(code)) for code in wanted} == wanted
    monkeypatch.setattr("langgraft.evaluation.overlap._installed", lambda _: False)
    assert [bleu_tokenizer(language(code)) for code in ("ja", "ko")] == ["char", "intl"]
    with pytest.raises(InputError, match=r"ja-mecab needs MeCab and its dictionary; pip install 'sacrebleu\[ja\]'"):
        bleu(CANTONESE, language("ja"), "ja-mecab")
    monkeypatch.setattr("langgraft.evaluation.overlap._installed", lambda _: True)
    assert [bleu_tokenizer(language(code)) for code in ("ja", "ko")] == ["ja-mecab", "ko-mecab"]


def test_punctuation_of_other_scripts_is_cut_off() -> None:
    """With 13a the danda would stay at its word, which then matches nothing."""
    assert bleu(["मैं घर जा रहा हूँ।"], HI).of(["मैं घर जा रहा हूँ"]) > 50


def test_tokenizers_that_would_be_downloaded_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr("sacrebleu.utils.SACREBLEU_DIR", str(tmp_path))
    with pytest.raises(InputError, match=r"flores200 needs its model at .*langgraft does not"):
        check_tokenizer("flores200")
    with pytest.raises(InputError, match=r"must be one of 13a, intl, .* or auto, not `moses`"):
        check_tokenizer("moses")
    field = TranslationSection.model_fields["tokenizer"].annotation
    assert get_args(field) == get_args(BleuTokenizer)


def test_rouge_is_that_of_rouge_score() -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer")
    english = scorer.RougeScorer(["rougeL"], use_stemmer=False)
    plain = [text.replace("'", " ") for text in ENGLISH]
    for text, reference in zip(NEAR, plain, strict=True):
        theirs = english.score(reference, text.replace("'", " "))["rougeL"].fmeasure
        assert rouge_l([reference], EN).of([text.replace("'", " ")]) == pytest.approx(100 * theirs)

    class Ours:
        def tokenize(self, text: str) -> list[str]:
            return units(text, YUE)

    cantonese = scorer.RougeScorer(["rougeL"], tokenizer=Ours())
    theirs = [cantonese.score(a, b)["rougeL"].fmeasure for a, b in zip(CANTONESE, CANTONESE[::-1], strict=True)]
    assert rouge_l(CANTONESE, YUE).of(CANTONESE[::-1]) == pytest.approx(100 * sum(theirs) / len(theirs))


def test_units_are_words_or_graphemes() -> None:
    assert units("Don't STOP, 2 times!", EN) == ["don", "t", "stop", "2", "times"]
    assert units("हिन्दी में।", HI) == ["हिन्दी", "में"]
    assert units("好味㗎! OK", YUE) == ["好", "味", "㗎", "o", "k"]
    assert units("น้ำดี", TH) == ["น้ำ", "ดี"]
    assert "units:graphemes" in rouge_l(CANTONESE, YUE).signature
    assert rouge_l([""], YUE).of(["我"]) == 0


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from("abcd"), max_size=12), st.lists(st.sampled_from("abcd"), max_size=12))
def test_the_longest_common_subsequence(one: list[str], other: list[str]) -> None:
    table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
    assert common_length(one, other) == table[-1][-1]


def test_intervals_are_paired_and_differences_within_noise_are_none() -> None:
    references = [f"{text} Number {i}." for i in range(8) for text in ENGLISH]
    sizes = [len(text) * (1 + i % 7) // 8 for i, text in enumerate(references)]
    rough, better = ([text[: n + more] for text, n in zip(references, sizes, strict=True)] for more in (0, 6))
    found = measure_overlap({"base": rough, "same": rough, "better": better}, chrf(references), resamples=300)
    assert found["models"]["base"]["low"] < found["models"]["base"]["mean"] < found["models"]["base"]["high"]
    assert found["changes"]["same"] == {"mean": 0, "low": 0, "high": 0, "verdict": "no measurable difference"}
    change = found["changes"]["better"]
    assert change["verdict"] == "gain"
    assert change["mean"] == pytest.approx(found["models"]["better"]["mean"] - found["models"]["base"]["mean"])
    # Both models' figures move together with the sentences that are drawn: apart they would hide the gain.
    width = {name: one["high"] - one["low"] for name, one in found["models"].items()}
    assert change["high"] - change["low"] < 0.5 * width["base"]
    shuffled = [*rough[1:], rough[0]]
    assert (
        measure_overlap({"a": rough, "b": shuffled}, chrf(references), resamples=300)["changes"]["b"]["verdict"]
        == "loss"
    )
    assert measure_overlap({"a": rough}, chrf(references), resamples=300)["models"]["a"] == found["models"]["base"]


def test_without_texts_there_is_no_figure() -> None:
    with pytest.raises(InputError, match="at least one"):
        measure_overlap({"a": []}, rouge_l([], EN))
    with pytest.raises(InputError, match="resamples must be at least 1"):
        measure_overlap({"a": CANTONESE}, chrf(CANTONESE), resamples=0)
