"""What is measured in the loop, against the base, and that each bound has a model that breaks it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pico import CANTONESE, ENGLISH, pico_model

from langgraft.base import separator_id
from langgraft.errors import CorpusError, RecipeError
from langgraft.evaluation.bpb import score
from langgraft.evaluation.icl import recall_items
from langgraft.evaluation.retention import Bounds, Gauge, Held, beginning, write
from langgraft.evaluation.stats import wilson
from langgraft.progress import Log
from langgraft.text import language
from langgraft.tokenizer.files import load
from langgraft.training.device import load_model

CPU = torch.device("cpu")
ITEMS = 12
NEW = 300  # ids from here on count as new
TARGET = Held(language("yue"), CANTONESE)
SOURCE = Held(language("en"), ENGLISH, ["The quick brown", "Water boils at", "She said", "In 1969, 2 people"])
QUICK: dict[str, Any] = {"first_new": NEW, "items": ITEMS, "resamples": 200, "device": "cpu", "threads": 1}


def learned(folder: Path, rows: list[tuple[str, str]], *, steps: int = 60) -> Path:
    """A pico model that has learned to go on from each prompt with its text."""
    pico_model(folder, hidden=64)
    torch.manual_seed(0)
    model, tokenizer, first = load_model(folder, CPU).train(), load(folder), separator_id(folder)
    cut = [[tokenizer.encode(part, add_special_tokens=False).ids for part in row] for row in rows]
    size = max(len(a) + len(b) for a, b in cut) + 2
    ids = torch.full((len(rows), size), first)
    labels = torch.full((len(rows), size), -100)
    for row, (prompt, text) in enumerate(cut):
        whole = [first, *prompt, *text, first]
        ids[row, : len(whole)] = torch.tensor(whole)
        labels[row, len(prompt) + 1 : len(whole)] = torch.tensor(whole[len(prompt) + 1 :])
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(steps):
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder


def items() -> list[tuple[str, str]]:
    return [(item.prompt, item.shown[item.answer]) for item in recall_items(ENGLISH, language("en"), count=ITEMS)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base that knows its English, and the items."""
    rows = [*items(), *(("", text) for text in ENGLISH)]
    return learned(tmp_path_factory.mktemp("gauge") / "base", rows, steps=150)


@pytest.fixture(scope="module")
def lost(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What is left of it after training on nothing but Cantonese, whatever the prompt."""
    rows = [(prompt, CANTONESE[number % 6]) for number, prompt in enumerate(["", "", *SOURCE.prompts])]
    return load_model(learned(tmp_path_factory.mktemp("gauge") / "lost", rows), CPU)


def gauge(base: Path, bounds: Bounds | None = None, **more: Any) -> Gauge:
    return Gauge(base, base, target=TARGET, source=SOURCE, bounds=bounds, **{**QUICK, **more})


def test_the_base_against_itself_has_not_changed(base: Path) -> None:
    measure = gauge(base, Bounds(0.001, 0.001, 0.5))
    found = measure(load_model(base, CPU))
    assert found.breaches == ()
    assert found.values["source_change"] == found.values["target_change"] == 0
    assert found.values["in_context"] > 0.8
    assert found.details["in_context_change"] == {"mean": 0, "low": 0, "high": 0}
    assert found.values["source_right_language"] == 1
    assert {**found.values, **found.details["base"]} == found.values


def test_values_are_those_of_the_functions_beneath(base: Path, lost: Any) -> None:
    found = gauge(base, window=64)(lost)
    scores = {
        side: score(base, texts, length=64, stride=64, model=lost, count_right=True, new_from=NEW, threads=1)
        for side, texts in (("target", CANTONESE), ("source", ENGLISH))
    }
    for side, expected in scores.items():
        assert found.values[f"{side}_bits_per_byte"] == expected.bits_per_byte
        assert found.values[f"{side}_accuracy"] == expected.right.sum() / expected.tokens.sum()
    ids = [i for text in CANTONESE for i in load(base).encode(text, add_special_tokens=False).ids]
    new = sum(i >= NEW for i in ids)
    assert scores["target"].new.sum() == new
    assert found.values.get("new_tokens_in_text", 0) == new / len(ids)
    assert found.values["source_right_language"] < found.details["base"]["source_right_language"]
    said = [(row["language"], row["prompt"]) for row in found.details["generations"]]
    assert said == [("yue", beginning(text)) for text in CANTONESE] + [("en", prompt) for prompt in SOURCE.prompts]


BREACHES = [
    (Bounds(source_bits_per_byte=0.05), "English bits per byte rose by"),
    (Bounds(in_context=0.2), "in-context recall fell by"),
    (Bounds(right_language=0.9), "continuations of English prompts are in English, fewer than the 90%"),
]


@pytest.mark.parametrize(("bounds", "sentence"), BREACHES, ids=["bits", "recall", "language"])
def test_each_bound_is_broken_by_what_it_is_for(bounds: Bounds, sentence: str, base: Path, lost: Any) -> None:
    found = gauge(base, bounds)(lost)
    assert len(found.breaches) == 1
    assert sentence in found.breaches[0]
    assert gauge(base)(lost).breaches == ()


def test_a_breach_is_more_than_noise(base: Path, lost: Any) -> None:
    """A bound between the estimate and the end of its interval is not broken yet."""
    change = gauge(base)(lost).details["change"]["source"]
    assert change["low"] < change["mean"]
    between = gauge(base, Bounds(source_bits_per_byte=(change["low"] + change["mean"]) / 2))
    found = between(lost)
    assert found.breaches == ()
    assert "above the bound of +" in found.line
    assert "but within noise: more development documents would tell" in found.line
    below = gauge(base, Bounds(source_bits_per_byte=change["low"] * 0.99))
    found = below(lost)
    assert len(found.breaches) == 1
    assert "within noise" not in found.line
    assert "within noise" not in gauge(base)(lost).line


def test_a_base_that_cannot_recall_is_not_judged_by_it(pico: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measure = gauge(pico, Bounds(in_context=0.01), log=Log())
    assert "not clearly above chance (12.5%), so that no bound holds" in capsys.readouterr().err
    found = measure(load_model(pico, CPU))
    assert (found.breaches, found.details["in_context_change"]) == ((), None)


def test_a_base_that_breaks_a_bound_itself_is_told_at_once(lost: Any, base: Path, tmp_path: Path) -> None:
    lost.save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((base / name).read_bytes())
    with pytest.raises(RecipeError, match=r"right_language is 0\.9, but the base itself goes on in English only"):
        gauge(tmp_path, Bounds(right_language=0.9))


def test_no_text_is_refused() -> None:
    with pytest.raises(CorpusError, match="measured on held-out Cantonese text, and there is none"):
        Held(language("yue"), [])


def test_the_model_is_left_as_it_was(base: Path) -> None:
    model = load_model(base, CPU)
    model.generation_config.repetition_penalty = 9.0
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    measure = gauge(base)
    first = measure(model)
    assert first.values == measure(model).values
    assert model.generation_config.repetition_penalty == 9.0
    assert not model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_prompts_continued_together_are_continued_as_alone(base: Path) -> None:
    model, tokenizer = load_model(base, CPU), load(base)
    prompts = ["The quick", "Water boils at 100 degrees and", "She"]
    together = write(model, tokenizer, 0, prompts, 8)
    assert together == [write(model, tokenizer, 0, [prompt], 8)[0] for prompt in prompts]
    assert all(0 not in row for row in together)
    assert write(model, tokenizer, 0, [], 8) == write(model, tokenizer, 0, prompts, 0) == []


def test_prompts_are_beginnings_of_texts() -> None:
    assert beginning("The quick brown fox jumps over the lazy dog.") == "The quick brown fox jumps"
    assert beginning("Short.") == "Short."
    long = "香港嘅夜景真係好靚" * 20
    assert long.startswith(beginning(long))
    assert len(beginning(long)) == 24


def test_wilson_interval() -> None:
    """Against the closed form for none and all, and figures of Newcombe 1998, table I (81 of 263; 15 of 148)."""
    assert wilson(0, 0) == (0.0, 1.0)
    np.testing.assert_allclose(wilson(0, 20), (0, 1.96**2 / (20 + 1.96**2)), atol=1e-12)
    np.testing.assert_allclose(wilson(81, 263), (0.2553, 0.3662), atol=5e-5)
    np.testing.assert_allclose(wilson(15, 148), (0.0624, 0.1605), atol=5e-5)
