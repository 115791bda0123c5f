"""Choice items: matched, no give-aways, none from the training text; who knows is told from who does not."""

import json
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from command import Finished, langgraft
from hypothesis import given, settings
from hypothesis import strategies as st
from pico import sentences

from langgraft.corpus.document import Document
from langgraft.errors import CorpusError
from langgraft.evaluation.choice import Built, Choice, Item, continuation_items, translation_items
from langgraft.evaluation.contamination import seen_in
from langgraft.evaluation.likelihood import DocumentBits
from langgraft.evaluation.minimal_pairs import MinimalPairs, read_minimal_pairs
from langgraft.evaluation.pairs import training_check
from langgraft.evaluation.rows import Parallel, parallel_texts, rows_of
from langgraft.evaluation.suite import Way
from langgraft.evaluation.wanted import Wanted, measures
from langgraft.text import language, utf8_bytes

YUE, EN, HI = language("yue"), language("en"), language("hi")
WHO = ["my mother", "the teacher", "a farmer", "her uncle", "that singer", "the old man", "our guide", "the baker"]
DOES = ["buys fish at", "walks slowly to", "waits before", "paints a picture of", "never goes to", "dreams about"]
WHERE = ["the market", "the station", "the harbour", "the school", "the temple", "the garden"]


def pairs(count: int = 200) -> list[Parallel]:
    """Sentences with a Cantonese one each; what they mean does not matter here."""
    english = [f"{a} {b} {c}" for b in DOES for a in WHO for c in WHERE]
    chosen = zip(sentences(count), english[:count], strict=True)
    return [Parallel(yue, en, f"{i}", "made") for i, (yue, en) in enumerate(chosen)]


class Oracle:
    """Knows the right options: they cost less after their context. Beside that it likes some better, for nothing."""

    kind = "oracle"

    def __init__(self, right: Collection[tuple[str, str]]) -> None:
        self.right = set(right)

    def documents(self, texts: Sequence[str], **_: Any) -> Iterator[list[DocumentBits]]:
        """Nothing to read."""
        yield [DocumentBits(i, 1.0, 1) for i in range(len(texts))]

    def continuations(self, asked: Sequence[tuple[str, str]], **_: Any) -> list[tuple[float, int]]:
        """Bits by length and liking, fewer for what is right."""
        likings = [crc32(text.encode()) % 40 for _, text in asked]
        costs = [8.0 * utf8_bytes(one[1]) + liking for one, liking in zip(asked, likings, strict=True)]
        return [(cost - 5.0 * (one in self.right), 1) for one, cost in zip(asked, costs, strict=True)]

    def close(self) -> None:
        """Nothing to free."""


def answers(built: Built, count: int | None = None) -> list[tuple[str, str]]:
    return [(item.context, item.options[item.answer]) for item in built.items[:count]]


@pytest.mark.parametrize("to_target", [True, False])
def test_translation_items_are_matched_and_repeatable(to_target: bool) -> None:
    built = translation_items(pairs(), YUE, EN, to_target=to_target, items=50)
    assert (len(built.items), built.options, built.shots) == (50, 4, 3)
    again = translation_items(pairs()[::-1], YUE, EN, to_target=to_target, items=50)
    assert again == built
    assert translation_items(pairs(), YUE, EN, to_target=to_target, items=50, seed=1) != built
    by_source = {one.source: one.target for one in pairs()} | {one.target: one.source for one in pairs()}
    places = set()
    for item in built.items:
        asked = item.context.splitlines()[-2].partition(": ")[2]
        assert item.options[item.answer] == f" {by_source[asked]}"
        assert len(set(item.options)) == 4
        sizes = [len(option) for option in item.options]
        assert max(sizes) <= 1.3**2 * min(sizes)
        assert asked not in item.neutral
        assert item.context.count("\n\n") == 3
        places.add(item.answer)
    assert places == {0, 1, 2, 3}  # the right one stands anywhere


def test_what_gives_the_answer_away_is_left_out() -> None:
    base = pairs(100)
    bad = [
        Parallel("佢有三十二部 iPhone 電話呀", "she has an iPhone at home today", "a", "made"),
        Parallel("喺1987年佢哋搬咗去香港", "they moved away in 1987 with the cat", "b", "made"),
        Parallel("你可以撳 $1 嗰度去睇多啲", "click on $1 to read some more of it", "c", "made"),
        Parallel("好", "good", "d", "made"),
        Parallel("我" * 300, "far too long " * 40, "e", "made"),
        Parallel(base[0].target, "another sentence with that translation", "f", "made"),
        Parallel("कुल १२ लोग वहाँ बैठे थे", "there were 12 people sitting there", "g", "made"),
    ]
    built = translation_items(bad[:6] + base, YUE, EN, items=200)
    texts = " ".join(item.context + "".join(item.options) for item in built.items)
    assert not any(word in texts for word in ("iPhone", "1987", "$1", "far too long"))
    assert {"copied": 3, "short": 1, "long": 1, "repeated": 1}.items() <= built.left_out.items()
    assert translation_items([bad[6]], HI, EN).left_out == {"copied": 1}  # the same number in another script


@pytest.mark.parametrize("marks", ["*{}", "({}) more", "<{}", "#{} too", "[{}]", "{} = that"])
def test_markup_is_not_there_to_be_copied(marks: str) -> None:
    marked = Parallel(marks.format("कुल लोग वहाँ बैठे"), marks.format("people were sitting there"), "m", "made")
    assert translation_items([marked], HI, EN).left_out == {"copied": 1}
    plain = Parallel("कुल लोग, वहाँ - बैठे!", "people, sitting - there!", "p", "made")
    assert "copied" not in translation_items([plain], HI, EN).left_out


@pytest.mark.parametrize(("hindi", "english"), [("।", "."), (":", ":"), ("!", "!"), ("…", "")])
def test_options_end_alike(hindi: str, english: str) -> None:
    """The mark at the end tells which sentence it is, to a model that knows no word of the language."""
    bare = [p._replace(target=p.target.rstrip("喇。呀？㗎囉！啫咩")) for p in pairs(200)]
    marked = [p._replace(target=p.target + hindi, source=p.source + english, id=p.id + "m") for p in bare[:90]]
    plain = bare[90:]
    for item in translation_items([*marked, *plain], YUE, EN, items=100).items:
        assert len({option.endswith(hindi) for option in item.options}) == 1


def test_questions_stand_among_questions() -> None:
    asked = [
        Parallel(p.target.rstrip("喇。呀？㗎囉！啫咩") + "呢？", p.source + "?", p.id + "q", "made") for p in pairs(90)
    ]
    built = translation_items([*asked, *pairs(200)[90:]], YUE, EN, items=100)
    for item in built.items:
        assert len({option.endswith("？") for option in item.options}) == 1


def test_what_was_trained_on_is_not_asked_for() -> None:
    training = ["前面有字。" + pairs()[i].target + "後面都有。" for i in range(40)]
    seen = training_check(lambda: training, "yue")
    built = translation_items(pairs(), YUE, EN, items=200, seen=seen)
    assert built.left_out["contaminated"] == 40
    used = {option.strip() for item in built.items for option in item.options}
    assert not used & {pairs()[i].target for i in range(40)}
    assert (
        translation_items(pairs(), YUE, EN, items=200, seen=training_check(None, "yue")).left_out["contaminated"] == 0
    )


def test_contamination_is_found_in_every_form() -> None:
    long = " ".join(f"word{i}" for i in range(40))
    texts = [long, "one two three four five", "too few", "never seen at all in any text", "Hello, World again friend"]
    training = ["x " + " ".join(f"word{i}" for i in range(9, 24)) + " y", "a ONE two, three four five b", "too  few!"]
    assert seen_in([*training, "hello world again friend"], texts, "en") == [True, True, True, False, True]
    assert seen_in([], texts, "en") == [False] * 5


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text("abcdefg hij", min_size=1, max_size=60), max_size=20), st.text("abcdefg hij", max_size=200))
def test_contamination_is_what_a_search_finds(texts: list[str], training: str) -> None:
    """Texts of 4 to 13 words: as a run of whole words in the training text, by plain search."""
    marks = seen_in([training], texts, "en")
    whole = f" {' '.join(training.split())} "
    for text, mark in zip(texts, marks, strict=True):
        words = text.split()
        if 4 <= len(words) <= 13:
            assert mark == (f" {' '.join(words)} " in whole or "".join(words) == "".join(training.split()))


def test_continuation_items_go_on_with_their_own_text() -> None:
    texts = [(one * 2, "made") for one in sentences(300)]
    built = continuation_items(texts, YUE, items=60)
    assert len(built.items) == 60
    whole = {text for text, _ in texts}
    for item in built.items:
        assert item.context + item.options[item.answer] in whole
        assert item.neutral == ""
    short = continuation_items([("好短", "made")] * 3, YUE)
    assert (short.items, short.left_out["short"]) == ((), 1)
    english = [
        (f"{a} {b} {c}, and then {d} {e} {f}", "made")
        for a in WHO
        for b, e in pairwise(DOES)
        for c in WHERE[:3]
        for d in WHO[:2]
        for f in WHERE[3:5]
    ]
    for item in continuation_items(english, EN, items=40).items:
        assert item.options[item.answer].startswith(" ")  # cut between words


def figures(built: Built, scorer: Oracle, tmp_path: Path) -> dict[str, Any]:
    choice = Choice(("choice", "translation", "to_target"), built)
    raws = {
        "base": choice.raw(Oracle(()), tmp_path / "base", "", None, ""),
        "adapted": choice.raw(scorer, tmp_path / "a", "", None, ""),
    }
    return choice.figures(raws, Way(500, 0))


def test_models_are_told_apart(tmp_path: Path) -> None:
    built = translation_items(pairs(), YUE, EN, items=120)
    found = figures(built, Oracle(answers(built, 90)), tmp_path)
    assert found["models"]["adapted"]["mean"] > 0.75
    assert found["changes"]["adapted"]["verdict"] == "gain"
    assert found["above_chance"] == {"base": False, "adapted": True}
    assert found["chance"] == 0.25
    assert found["models"]["base"]["mean"] < 0.4
    assert set(found["by"]) == {"per_byte", "sum"}
    assert found["example"]["options"][found["example"]["answer"]]


def test_a_liking_for_an_option_is_no_answer(tmp_path: Path) -> None:
    """Sums fall for it, what the context adds does not."""
    built = translation_items(pairs(), YUE, EN, items=120)
    found = figures(built, Oracle(answers(built)), tmp_path)
    assert found["models"]["adapted"]["mean"] == 1.0
    assert found["by"]["sum"]["models"]["adapted"]["mean"] < 0.7
    kept = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["found"]
    assert len(kept) == 120


def test_minimal_pairs(tmp_path: Path) -> None:
    file = tmp_path / "agreement.jsonl"
    rows = [
        {"sentence_good": f"cats sleep {i}", "sentence_bad": f"cats sleeps here every night {i}", "UID": f"kind{i % 2}"}
        for i in range(40)
    ]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    read = read_minimal_pairs(str(file))
    assert read.where == ("minimal_pairs", "agreement")
    raw = read.raw(Oracle(()), tmp_path / "scores", "", None, "")
    found = read.figures({"base": raw, "adapted": [[b, a] for a, b in raw[:30]] + raw[30:]}, Way(500, 0))
    assert found["models"]["base"]["mean"] == 1.0
    assert found["changes"]["adapted"]["verdict"] == "loss"
    assert found["phenomena"]["kind1"] == {"items": 20, "models": {"base": 1.0, "adapted": 0.25}}
    bad = tmp_path / "agreement.csv"
    bad.write_text("a,b\nx,y\n", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"agreement\.csv:\d has no right sentence: none of the fields sentence_good"):
        read_minimal_pairs(str(bad))
    assert isinstance(read, MinimalPairs)


def test_parallel_text_is_read_from_what_people_have(tmp_path: Path) -> None:
    jsonl = tmp_path / "pairs.jsonl"
    jsonl.write_text(json.dumps({"en": "hello", "yue": "你好", "source": "chat"}) + "\n", encoding="utf-8")
    table = tmp_path / "pairs.tsv"
    table.write_text("source\ttarget\ngood morning\t早晨\nthanks\t唔該\n", encoding="utf-8")
    po = tmp_path / "yue.po"
    po.write_text(
        'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\n\nmsgid "open"\nmsgstr "打開"\n',
        encoding="utf-8",
    )
    found = parallel_texts([str(jsonl), str(table), str(po)], "yue", "en")
    assert [(one.source, one.target) for one in found] == [
        ("hello", "你好"), ("good morning", "早晨"), ("thanks", "唔該"), ("open", "打開"),
    ]  # fmt: skip
    assert [one.origin for one in found][:2] == ["chat", "pairs.tsv"]
    with pytest.raises(CorpusError, match="has no text in Thai: none of the fields th, target"):
        parallel_texts([str(jsonl)], "th", "en")
    plain = tmp_path / "plain.txt"
    plain.write_text("nothing", encoding="utf-8")
    with pytest.raises(CorpusError, match="has no rows with fields"):
        list(rows_of(str(plain)))
    jsonl.write_text('{"en": ["no"], "yue": "x"}\n', encoding="utf-8")
    with pytest.raises(CorpusError, match="field `en` is no text"):
        parallel_texts([str(jsonl)], "yue", "en")
    jsonl.write_text('["no row"]\n"text"\n', encoding="utf-8")
    with pytest.raises(CorpusError, match="is no row with fields"):
        list(rows_of(str(jsonl)))


def test_too_few_items_are_an_error_where_they_were_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "few.jsonl"
    file.write_text("\n".join(json.dumps({"en": p.source, "yue": p.target}) for p in pairs(15)), encoding="utf-8")
    texts = {"target": [Document("好短", "1", "yue", "made", "")]}
    with pytest.raises(CorpusError, match=r"only \d+ items for translation choice could be made of .*few\.jsonl"):
        measures(Wanted(parallel=[str(file)]), texts, YUE, EN)
    assert len(measures(Wanted(continuation=True), texts, YUE, EN)) == 1  # bits per byte alone, and the log says why


def test_the_command_measures_choice_and_goes_on_after_a_kill(finished: Finished, tmp_path: Path) -> None:
    base, model = finished.recipe.parent.parent / "base", finished.stage("pretrain") / "model"
    files = {name: tmp_path / f"{name}.jsonl" for name in ("text", "pairs", "blimp")}
    files["text"].write_text("\n".join(json.dumps({"text": one * 2}) for one in sentences(60)), encoding="utf-8")
    files["pairs"].write_text(
        "\n".join(json.dumps({"en": p.source, "yue": p.target}) for p in pairs(120)), encoding="utf-8"
    )
    files["blimp"].write_text(
        "\n".join(json.dumps({"good": f"the dog {i}", "bad": f"dog the {i}"}) for i in range(30)), encoding="utf-8"
    )
    command = [
        "evaluate", "--models", base, model, "--target", files["text"], "--language", "yue",
        "--parallel", files["pairs"], "--continuation", "--items", 20, "--shots", 1,
        "--minimal-pairs", files["blimp"], "--code-mixed", files["text"],
        "--train", finished.recipe.with_name("yue.jsonl"), "--threads", 1, "-o", tmp_path / "out", "--json",
    ]  # fmt: skip
    done = langgraft(*command)
    assert "fewer than 20 say nothing (left out:" in done.sentence()  # every sentence is in the training text
    assert "contaminated" in done.sentence()
    command = [one for one in command if one not in ("--train", finished.recipe.with_name("yue.jsonl"))]
    assert "was begun with other settings" in langgraft(*command).sentence()
    command[command.index("-o") + 1] = tmp_path / "again"
    first = langgraft(*command)
    assert first.code == 0, first.err
    found = json.loads(first.out)
    assert set(found["choice"]) == {"translation", "continuation"}
    assert found["choice"]["translation"]["to_source"]["items"] == 20
    assert found["minimal_pairs"]["blimp"]["items"] == 30
    assert found["code_mixed"]["change"]["verdict"] == found["bits_per_byte"]["target"]["change"]["verdict"] == "gain"
    assert "translation choice, to target (chance 25%)" in first.err
    (tmp_path / "again" / "results.json").unlink()
    (tmp_path / "again" / "scores" / "adapted-choice-translation-to_target.json").unlink()
    second = langgraft(*command)
    assert json.loads(second.out) == found


def test_items_are_plain_values() -> None:
    assert Item("a", "", ("b", "c"), 0, "1") == Item("a", "", ("b", "c"), 0, "1")
