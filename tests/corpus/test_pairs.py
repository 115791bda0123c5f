"""Pairs to train on: read from what people have, cleaned, and kept apart from what is held out."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from command import langgraft
from pico import sentences

from langgraft.corpus.document import Input, Pair, Report
from langgraft.corpus.pairs import (
    HeldOut,
    clean_pairs,
    held_texts,
    prepare_pairs,
    read_pairs_of,
    read_parallel,
    without_held_out,
    write_pairs,
)
from langgraft.errors import CorpusError

ROWS = [("我今日去飲茶。", "I go for dim sum today."), ("佢聽日會落雨呀。", "It will rain tomorrow.")]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path, **given: Any) -> list[Pair]:
    return list(read_parallel([Input(str(path), **given)], "yue", "en", Report()))


@pytest.mark.parametrize("names", [("yue", "en"), ("target", "source")])
def test_rows_name_their_languages(tmp_path: Path, names: tuple[str, str]) -> None:
    rows = [{names[0]: a, names[1]: b, "license": "CC0-1.0"} for a, b in ROWS]
    found = read(write(tmp_path / "pairs.jsonl", rows))
    assert [(pair.text, pair.pair) for pair in found] == ROWS
    assert {(pair.source, pair.license) for pair in found} == {(str(tmp_path / "pairs.jsonl"), "CC0-1.0")}
    (tmp_path / "pairs.json").write_text(json.dumps(rows), encoding="utf-8")
    assert [(pair.text, pair.pair) for pair in read(tmp_path / "pairs.json", name="my pairs")] == ROWS
    assert {pair.source for pair in read(tmp_path / "pairs.json", name="my pairs")} == {"my pairs"}


def test_rows_with_other_names_and_tables(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.jsonl", [{"ours": a, "theirs": b, "source": "wiki"} for a, b in ROWS])
    with pytest.raises(CorpusError, match=r"has no field for Cantonese \(yue\); the fields are ours, theirs, source: "):
        read(path)
    with pytest.raises(CorpusError, match=r"has no field for English \(en\); the fields are ours, theirs"):
        read(write(tmp_path / "b.jsonl", [{"ours": "a", "theirs": "b"}]), text_key="ours")
    found = read(path, text_key="ours", options={"pair_key": "theirs"})
    assert [(pair.text, pair.pair, pair.source) for pair in found] == [(*row, "wiki") for row in ROWS]
    (tmp_path / "pairs.tsv").write_text("en\tyue\n" + "".join(f"{b}\t{a}\n" for a, b in ROWS), encoding="utf-8")
    assert [(pair.text, pair.pair) for pair in read(tmp_path / "pairs.tsv")] == ROWS
    (tmp_path / "bare.tsv").write_text("".join(f"{b}\t{a}\n" for a, b in ROWS), encoding="utf-8")
    found = read(tmp_path / "bare.tsv", text_key="2", options={"pair_key": "1"})
    assert [(pair.text, pair.pair) for pair in found] == ROWS


def test_parquet_columns(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"yue": [a for a, _ in ROWS], "en": [b for _, b in ROWS]})
    parquet.write_table(table, tmp_path / "pairs.parquet")
    assert [(pair.text, pair.pair) for pair in read(tmp_path / "pairs.parquet")] == ROWS
    with pytest.raises(CorpusError, match=r"no column 'fr'; the columns are yue, en \(set pair_key\)"):
        read(tmp_path / "pairs.parquet", text_key="yue", options={"pair_key": "fr"})


def test_files_that_say_it_themselves(tmp_path: Path) -> None:
    entries = "".join(f'msgid "{b}"\nmsgstr "{a}"\n\n' for a, b in ROWS)
    (tmp_path / "yue.po").write_text(entries, encoding="utf-8")
    assert [(pair.text, pair.pair) for pair in read(tmp_path / "yue.po")] == ROWS
    unit = "<tu>{}</tu>".format(
        "".join(
            f'<tuv xml:lang="{code}"><seg>{text}</seg></tuv>'
            for code, text in (("fr", "Je vais."), ("en", ROWS[0][1]), ("yue", ROWS[0][0]))
        )
    )
    (tmp_path / "m.tmx").write_text(f'<tmx version="1.4"><body>{unit}</body></tmx>', encoding="utf-8")
    assert [(pair.text, pair.pair) for pair in read(tmp_path / "m.tmx")] == ROWS[:1]  # not the French
    (tmp_path / "d.u8").write_text("飲茶 /to have dim sum/\n食飯 /to eat/\n", encoding="utf-8")
    assert [pair.text for pair in read(tmp_path / "d.u8", reader="edict")] == ["飲茶", "食飯"]
    (tmp_path / "plain.txt").write_text("我今日去飲茶。\n", encoding="utf-8")
    with pytest.raises(CorpusError, match="there is no text in two languages in"):
        read(tmp_path / "plain.txt")
    with pytest.raises(CorpusError, match="parallel text is read from files"):
        list(read_parallel([Input("hub:owner/pairs")], "yue", "en", Report()))


def test_a_damaged_row_is_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.jsonl", [{"yue": "我", "en": "I"}, {"yue": "你"}, {"yue": "佢", "en": 3}])
    report = Report()
    assert len(list(read_parallel([Input(str(path))], "yue", "en", report))) == 1
    assert report.counts == {"no_field": 1, "no_string": 1}
    with pytest.raises(CorpusError, match="no field 'en'"):
        list(read_parallel([Input(str(path), strict=True)], "yue", "en", Report()))


def test_pairs_that_teach_nothing_are_counted_by_reason() -> None:
    of = [
        ("我今日去飲茶。", "I go for dim sum today."),
        ("我今日去飲茶！", "I go for dim sum today"),  # the same words
        ("", "Nothing."),
        ("OpenOffice", "openoffice"),
        ("Somebody forgot to translate this sentence.", "Somebody did not translate this."),
        ("佢聽日會落雨呀。", "Завтра будет дождь, говорят они все."),
    ]
    out = Counter[str]()
    kept = list(clean_pairs((Pair(a, b, "", "", "") for a, b in of), "yue", "en", out))
    assert [pair.pair for pair in kept] == ["I go for dim sum today."]
    assert out == {"repeated": 1, "empty": 1, "untranslated": 1, "language": 2}


ENGLISH = "The committee decided to meet again on the first Monday of the month of March."


@pytest.mark.parametrize(
    ("text", "leaks"),
    [
        (ENGLISH, True),
        (ENGLISH.upper().replace(".", "!"), True),
        ("decided to meet again", True),  # a part of it
        ("Minutes. " + ENGLISH + " That was all.", True),  # more than it
        ("Later the committee decided to meet again on the first Monday of the month of May, not before.", True),
        ("The committee meets on Mondays.", False),
        ("Monday", False),  # a word alone says nothing
        ("Save", True),  # unless it is a whole held-out text
        ("Save the file", False),
        ("The cat sat down near the warm stove today.", True),  # nearly the same
        ("quiet is the night here", True),  # a short text inside a longer one
        ("How quiet is the night here?", True),
    ],
)
def test_overlaps_with_held_out_text_are_found(text: str, leaks: bool) -> None:
    near = "The cat sat down near the warm stove today, it did, and the dog lay down beside it too."
    held = HeldOut([ENGLISH, "Save", near.replace("today, it did", "today"), "quiet is the night here"], "en")
    assert held.overlap([text]) == [leaks]
    assert HeldOut([], "en").overlap([text]) == [False]


def test_overlaps_in_a_language_without_spaces() -> None:
    held = HeldOut(["我琴日喺街市買咗三斤菜心同埋一條魚，返到屋企先發現唔見咗銀包。"], "yue")
    assert held.overlap(["買咗三斤菜心同埋", "菜心", "我哋聽日去行山。"]) == [True, False, False]


def test_a_planted_leak_on_either_side_is_left_out() -> None:
    held_yue, held_en = sentences(30)[10:20], [f"Sentence {i} of the held-out set is this one." for i in range(10)]
    good = [Pair(text, f"English number {i} stands here.", str(i), "a", "") for i, text in enumerate(sentences(10))]
    leaks = [
        Pair(held_yue[3], "Nothing to see here at all.", "leak", "a", ""),
        Pair("我話你知：" + held_yue[4], "Nothing at all to see here.", "leak", "a", ""),
        Pair("唔關事嘅一句說話。", held_en[5], "leak", "a", ""),
    ]
    out = Counter[str]()
    mixed = [*good[:5], *leaks, *good[5:]]
    kept = list(without_held_out(mixed, HeldOut(held_yue, "yue"), HeldOut(held_en, "en"), out))
    assert kept == good
    assert out == {"held_out": 3}


def test_texts_of_evaluation_sets_of_any_kind(tmp_path: Path) -> None:
    rows = write(tmp_path / "a.jsonl", [{"yue": ROWS[0][0], "en": ROWS[0][1]}])
    (tmp_path / "b.po").write_text(f'msgid "{ROWS[1][1]}"\nmsgstr "{ROWS[1][0]}"\n\n', encoding="utf-8")
    found = set(held_texts([str(rows), str(tmp_path / "b.po")], "yue"))
    assert found == {text for row in ROWS for text in row}


def many(tmp_path: Path, count: int) -> Input:
    rows = [
        {"yue": text, "en": f"This is what number {i} says.", "license": "CC0-1.0"}
        for i, text in enumerate(sentences(count))
    ]
    return Input(str(write(tmp_path / "many.jsonl", rows)), name="many")


def test_pairs_are_set_apart_by_a_hash_and_their_like_are_left_out(tmp_path: Path) -> None:
    one, again, other = (prepare_pairs([many(tmp_path, 200)], "yue", "en", dev=15, seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert one.dev != other.dev
    assert (len(one.dev), one.facts["dev"], one.facts["read"]) == (15, 15, 200)
    assert one.facts["used"] + one.facts["dev"] + sum(one.facts["left_out"].values()) == 200
    assert one.facts["licenses"] == {"CC0-1.0": one.facts["used"]}
    assert one.facts["sources"] == {"many": one.facts["used"]}
    assert not {pair.text for pair in one.dev} & {pair.text for pair in one.train}
    assert [int(pair.id.rpartition(":")[2]) for pair in one.train] == sorted(
        int(pair.id.rpartition(":")[2]) for pair in one.train
    )
    write_pairs(one, tmp_path / "out")
    assert list(read_pairs_of(tmp_path / "out", "train")) == one.train
    assert list(read_pairs_of(tmp_path / "out", "dev")) == one.dev


def test_the_command_writes_documents_in_the_formats_asked_for(tmp_path: Path) -> None:
    many(tmp_path, 200)
    out, held = tmp_path / "out.jsonl", write(tmp_path / "held.jsonl", [{"text": sentences(3)[2]}])
    given = ("--language", "yue", "-o", out, "--against", held, "--json")
    done = langgraft("parallel", tmp_path / "many.jsonl", *given, "--format", "bilingual", "--format", "interleaved")
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert facts["left_out"]["held_out"] == 1
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert Counter(row["source"] for row in rows) == facts["documents"]
    assert set(facts["documents"]) == {"bilingual", "interleaved"}
    assert rows[0]["text"].startswith(f"{sentences(1)[0]} (This is what number 0 says.)")
    assert {row["license"] for row in rows} == {"CC0-1.0"}
    done = langgraft("parallel", tmp_path / "many.jsonl", *given, "--format", "bilingul")
    assert done.code == 2
    assert "`bilingul` is unknown; did you mean `bilingual`" in done.sentence()


def test_nothing_left_is_told_with_the_reasons(tmp_path: Path) -> None:
    source = many(tmp_path, 60)
    with pytest.raises(CorpusError, match=r"0 of the 60 pairs in .* are left, .*out: 60 held out\); give more"):
        prepare_pairs([source], "yue", "en", held_out=sentences(60))
