"""SentencePiece's BPE: what an extension writes, and each planted fault failing its gate."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from families import llama2, spm_model
from hypothesis import given, settings
from hypothesis import strategies as st
from languages import LINES, extended
from pico import CANTONESE, ENGLISH

from langgraft.base import separator_id
from langgraft.errors import TokenizerError
from langgraft.store import read_json
from langgraft.surgery.resize import new_token_pieces
from langgraft.text import language
from langgraft.tokenizer.files import SPACE, load, piece_bytes, read_tokenizer, write_tokenizer
from langgraft.tokenizer.measure import pieces
from langgraft.tokenizer.pieces import merges_for, words_in
from langgraft.tokenizer.prove import Gate, prove
from langgraft.tokenizer.scope import Scope
from langgraft.tokenizer.spm_model import processor, read_model

IDS, MERGES, OUTSIDE, REACHABLE, PIECES, SAME, ALIKE = (
    "old ids unchanged",
    "old merges first, none incomplete",
    "code points outside the scope unchanged",
    "no unreachable new token",
    "tokenizer.model: old pieces first, new ones below",
    "tokenizer.model gives the same ids",
    "AutoTokenizer gives the same ids",
)
Data = dict[str, Any]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama2(tmp_path_factory.mktemp("spm") / "base")


@pytest.fixture(scope="module")
def good(base: Path) -> Path:
    extended(base, base.parent / "good", new_tokens=120)
    return base.parent / "good"


def gates_of(base: Path, folder: Path, *, everything: bool = False) -> dict[str, Gate]:
    with pytest.MonkeyPatch.context() as patch:
        if not everything:
            patch.setattr(Scope, "outside", lambda scope: (c for c in range(0x20, 0x1000) if c not in scope))
        gates = prove(base, folder, language("yue"), target_texts=CANTONESE, source_texts=ENGLISH, fuzz=200)
    return {gate.name: gate for gate in gates}


def test_all_gates_over_all_code_points(base: Path, good: Path) -> None:
    gates = gates_of(base, good, everything=True)
    assert [name for name, gate in gates.items() if not gate.passed] == []
    assert list(gates)[-2:] == [PIECES, SAME]


def test_what_is_written(base: Path, good: Path) -> None:
    old, new = read_model(base / "tokenizer.model"), read_model(good / "tokenizer.model")
    count = len(old.pieces)
    assert list(new.pieces[:count]) == list(old.pieces)
    assert [(piece.piece, piece.type) for piece in new.pieces[count : count + 2]] == [
        ("<|im_start|>", 3),
        ("<tool>", 4),
    ]
    scores = [piece.score for piece in new.pieces[count + 2 :]]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] < min(piece.score for piece in old.pieces)
    assert new.trainer_spec.vocab_size == len(new.pieces)
    assert new.normalizer_spec == old.normalizer_spec
    vocab = read_tokenizer(good)["model"]["vocab"]
    assert [vocab[piece.piece] for piece in new.pieces] == list(range(len(new.pieces)))
    assert separator_id(good) == 2
    assert read_json(good / "tokenizer_config.json")["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_characters_in_byte_tokens_become_pieces(base: Path, good: Path) -> None:
    assert load(base).encode("哋", add_special_tokens=False).tokens == [SPACE, "<0xE5>", "<0x93>", "<0x8B>"]
    assert load(good).encode("a哋", add_special_tokens=False).tokens[-1] == "哋"
    assert pieces(base, "a哋") == [" a", "<E5>", "<93>", "<8B>"]
    assert not any(merge[0].startswith("<0x") for merge in read_tokenizer(good)["model"]["merges"])


def test_ids_that_only_the_config_names_are_unused_pieces(tmp_path: Path) -> None:
    base = llama2(tmp_path / "base")
    (base / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 600, "pad_token_id": 524}))
    assert extended(base, tmp_path / "x").first_id == 525
    found = read_model(tmp_path / "x" / "tokenizer.model").pieces[522:525]
    assert [piece.type for piece in found] == [5, 5, 5]
    assert all(gate.passed for gate in gates_of(base, tmp_path / "x").values())


def test_keeping_the_tokenizer_keeps_the_file(base: Path, tmp_path: Path) -> None:
    write_tokenizer(read_tokenizer(base), base, tmp_path / "x")
    assert (tmp_path / "x" / "tokenizer.model").read_bytes() == (base / "tokenizer.model").read_bytes()
    assert all(gate.passed for gate in gates_of(base, tmp_path / "x").values())


def test_the_same_text_gives_the_same_bytes(base: Path, good: Path, tmp_path: Path) -> None:
    extended(base, tmp_path / "x", new_tokens=120)
    for name in ("tokenizer.json", "tokenizer.model"):
        assert (tmp_path / "x" / name).read_bytes() == (good / name).read_bytes()


def test_surgery_gets_the_base_ids_of_new_pieces_without_a_space_before(base: Path, good: Path) -> None:
    ids, first = new_token_pieces(base, good)
    tokens, spelled = read_tokenizer(good)["model"]["vocab"], read_tokenizer(base)["model"]["vocab"]
    names = {i: token for token, i in spelled.items()}
    assert first == 522
    assert len(ids) == len(tokens) - first
    for i, parts in enumerate(ids, first):
        piece = next(token for token, token_id in tokens.items() if token_id == i)
        assert b"".join(piece_bytes(names[part]) for part in parts) == piece_bytes(piece)


def test_old_pieces_that_can_be_made_in_new_ways() -> None:
    data = {"model": {"vocab": {"一": 0, "丁": 1, "七": 2, "丁七": 3, "一丁七": 4},
                      "merges": [["丁", "七"], ["一", "丁七"]]}}  # fmt: skip
    assert merges_for(data, ["一丁", "一丁一"], Scope(("Han",))) == [("一丁", "七"), ("一", "丁"), ("一丁", "一")]


def test_words_are_cut_at_spaces_and_digits_stay_alone() -> None:
    assert words_in("▁यह▁▁है,▁१२") == ["▁यह", "▁है", ",", "१", "२"]
    assert words_in("▁我哋，一二") == ["▁我哋", "，", "一二"]


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])) | st.text("我哋今日去邊度食飯 呀？a1\n"))
def test_both_files_agree_on_any_text(good: Path, text: str) -> None:
    named = ("<s>", "</s>", "<unk>", "<|im_start|>", "<tool>")
    if not any(name in text for name in named) and "\0" not in text:
        ids = load(good).encode(text, add_special_tokens=False).ids
        assert processor(good / "tokenizer.model").encode(text) == ids


def edit_json(folder: Path, fault: Callable[[Data], None]) -> None:
    data = read_tokenizer(folder)
    fault(data)
    (folder / "tokenizer.json").write_text(json.dumps(data, ensure_ascii=False))


def edit_model(folder: Path, fault: Callable[[Any], object]) -> None:
    proto = read_model(folder / "tokenizer.model")
    fault(proto)
    (folder / "tokenizer.model").write_bytes(proto.SerializeToString())


def score_zero(folder: Path) -> None:
    edit_model(folder, lambda proto: [setattr(piece, "score", 0.0) for piece in proto.pieces[522:]])


def score_above_the_lowest(folder: Path) -> None:
    edit_model(folder, lambda proto: setattr(proto.pieces[522], "score", -1.5))


def scores_ascending(folder: Path) -> None:
    edit_model(folder, lambda proto: setattr(proto.pieces[540], "score", -1e6))


def imported_byte_piece(folder: Path) -> None:
    edit_model(folder, lambda proto: proto.pieces.add(piece="<0xE5> ", score=0.0, type=6))


def imported_control_piece(folder: Path) -> None:
    edit_model(folder, lambda proto: proto.pieces.add(piece="[CLS]", score=0.0, type=3))


def new_piece_as_control(folder: Path) -> None:
    edit_model(folder, lambda proto: setattr(proto.pieces[522], "type", 3))


def old_piece_changed(folder: Path) -> None:
    edit_model(folder, lambda proto: setattr(proto.pieces[300], "score", -1e6))


def piece_missing(folder: Path) -> None:
    edit_model(folder, lambda proto: proto.pieces.pop())


def base_model_left(folder: Path) -> None:
    shutil.copyfile(folder.parent / "base.model", folder / "tokenizer.model")


def no_model(folder: Path) -> None:
    (folder / "tokenizer.model").unlink()


def unigram_pieces(folder: Path) -> None:
    """What a default SentencePiece training gives: unigram scores, near zero, in a BPE model."""
    edit_model(folder, lambda proto: [setattr(p, "score", -0.01 * i) for i, p in enumerate(proto.pieces[522:])])


def other_normaliser(folder: Path) -> None:
    donor = spm_model(normalization_rule_name="nmt_nfkc")
    path = folder / "donor.model"
    path.write_bytes(donor)
    spec = read_model(path).normalizer_spec
    edit_model(folder, lambda proto: proto.normalizer_spec.CopyFrom(spec))


def new_merges_first(folder: Path) -> None:
    def move(data: Data) -> None:
        data["model"]["merges"] = data["model"]["merges"][-5:] + data["model"]["merges"][:-5]

    edit_json(folder, move)


def merged_byte_tokens(folder: Path) -> None:
    def leak(data: Data) -> None:
        vocab = data["model"]["vocab"]
        vocab["<0xE0><0xB8>"] = max(vocab.values()) + 1
        data["model"]["merges"].append(["<0xE0>", "<0xB8>"])

    edit_json(folder, leak)


def piece_without_merges(folder: Path) -> None:
    def add(data: Data) -> None:
        data["model"]["vocab"]["我琴日"] = max(data["model"]["vocab"].values()) + 1

    edit_json(folder, add)


def shifted_special_id(folder: Path) -> None:
    def shift(data: Data) -> None:
        data["model"]["vocab"]["</s>"] = max(data["model"]["vocab"].values()) + 1

    edit_json(folder, shift)


def rebuilt_class(folder: Path) -> None:
    config = read_json(folder / "tokenizer_config.json")
    config.update(tokenizer_class="LlamaTokenizer", legacy=False)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


FAULTS: list[tuple[str, Callable[[Path], None]]] = [
    (PIECES, score_zero), (PIECES, score_above_the_lowest), (PIECES, scores_ascending), (PIECES, imported_byte_piece),
    (PIECES, imported_control_piece), (PIECES, new_piece_as_control), (PIECES, old_piece_changed),
    (PIECES, piece_missing), (PIECES, base_model_left), (PIECES, no_model), (PIECES, unigram_pieces),
    (SAME, imported_byte_piece), (SAME, new_piece_as_control), (SAME, base_model_left), (SAME, no_model),
    (SAME, other_normaliser), (MERGES, new_merges_first), (OUTSIDE, merged_byte_tokens), (SAME, merged_byte_tokens),
    (REACHABLE, piece_without_merges), (IDS, shifted_special_id), (ALIKE, rebuilt_class),
]  # fmt: skip


@pytest.mark.parametrize("name, fault", FAULTS, ids=[f"{name[:6]}-{fault.__name__}" for name, fault in FAULTS])
def test_a_planted_fault_fails_its_gate(
    base: Path, good: Path, tmp_path: Path, name: str, fault: Callable[[Path], None]
) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(good, bad)
    shutil.copyfile(base / "tokenizer.model", tmp_path / "base.model")
    fault(bad)
    gate = gates_of(base, bad)[name]
    assert not gate.passed
    assert gate.detail


@pytest.mark.parametrize(
    "model, message",
    [
        (b"\xff\xff not a model", "is no SentencePiece model"),
        (b"", "without pieces"),
    ],
)
def test_a_broken_model_file_is_refused(base: Path, tmp_path: Path, model: bytes, message: str) -> None:
    shutil.copytree(base, tmp_path / "b")
    (tmp_path / "b" / "tokenizer.model").write_bytes(model)
    with pytest.raises(TokenizerError, match=message):
        extended(tmp_path / "b", tmp_path / "x")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"model_type": "unigram", "vocab_size": 370}, "is no BPE model, but the tokenizer.json"),
        ({"vocab_size": 500, "split_digits": False, "character_coverage": 0.99}, "differ: piece"),
    ],
)
def test_a_model_file_of_another_tokenizer_is_refused(
    base: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    shutil.copytree(base, tmp_path / "b")
    (tmp_path / "b" / "tokenizer.model").write_bytes(spm_model(**options))
    with pytest.raises(TokenizerError, match=message):
        extended(tmp_path / "b", tmp_path / "x")


def test_lines_of_other_scripts(base: Path, tmp_path: Path) -> None:
    extension = extended(base, tmp_path / "hi", "hi", new_tokens=100)
    assert any(piece.startswith(SPACE) and len(piece) > 2 for piece in extension.tokens)
    assert all(SPACE not in piece[1:] for piece in extension.tokens)
    assert LINES["hi"][0] == load(tmp_path / "hi").decode(load(tmp_path / "hi").encode(LINES["hi"][0]).ids)
