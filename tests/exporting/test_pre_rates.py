"""What each of llama.cpp's pre-tokenizers costs, and the choice between them."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from gguf_cases import (
    MARKS,
    QWEN_MARKS,
    REPAIRED,
    SMOLLM,
    byte_level,
    greedy_tokenizer,
    model_of,
    sequence,
    split,
)

from langgraft.errors import ModelError
from langgraft.exporting import pre_rates
from langgraft.exporting.formats import export_gguf
from langgraft.exporting.gguf_vocab import load_tokenizer
from langgraft.exporting.parity_lines import parity_kinds, parity_lines
from langgraft.exporting.pre_rates import OWN, choose_pre, describe, llamacpp_ids, measure_pre, tokenizer_gate

needs_llamacpp = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed"
)
FEW = ("gpt-2", "smollm", "qwen2", "qwen35", "no-such-pre")


@pytest.fixture(scope="module")
def greedy() -> dict[str, Any]:
    return greedy_tokenizer(parity_lines(600), size=3000)


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pre_rates, "PRE_TYPES", FEW)
    monkeypatch.setattr(pre_rates, "parity_kinds", lambda: parity_kinds(400))
    monkeypatch.setattr(pre_rates, "parity_lines", lambda: parity_lines(400))


def folder_of(greedy: dict[str, Any], folder: Path, pre: dict[str, Any], **changes: Any) -> Path:
    folder.mkdir()
    document = {**greedy, "pre_tokenizer": pre, **changes}
    (folder / "tokenizer.json").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    return folder


@needs_llamacpp
def test_the_right_one_is_at_none_and_the_others_are_not(greedy: dict[str, Any], tmp_path: Path) -> None:
    for name, pre in (("smollm", SMOLLM), ("qwen35", sequence(split(QWEN_MARKS), byte_level(use_regex=False)))):
        found = measure_pre(folder_of(greedy, tmp_path / name, pre), texts=["नमस्ते दुनिया\n\nok", "a\0b"])
        assert (found[0].pre, found[0].rate) == (name, 0)
        assert found[0].kinds[OWN] == (0, 2)
        assert found[1].rate > 0.05
        assert len(found) == len(FEW) - 1


@needs_llamacpp
def test_only_the_best_read_every_line(greedy: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pre_rates, "MEASURED", 1)
    found = measure_pre(folder_of(greedy, tmp_path / "m", SMOLLM), kinds={"a": parity_lines(60)})
    assert [rates.kinds["a"][1] for rates in found] == [60, 10, 10, 10]
    assert found[0].pre == "smollm"


@needs_llamacpp
def test_a_repaired_pattern_is_refused_with_figures_unless_they_are_accepted(
    greedy: dict[str, Any], tmp_path: Path
) -> None:
    folder = folder_of(greedy, tmp_path / "m", REPAIRED)
    best = measure_pre(folder)[0]
    assert 0 < best.rate < 1
    with pytest.raises(ModelError) as caught:
        choose_pre(folder, accept_mismatch=best.rate / 2)
    for part in (
        f"{best.rate:.1%}",
        "`qwen35`",
        "`smollm`",
        "code ",
        "Hindi ",
        "accept_mismatch",
        "repair_marks",
        "hub folder",
    ):
        assert part in str(caught.value)
    pre, reason = choose_pre(folder, accept_mismatch=best.rate)
    assert pre == best.pre
    assert "which was accepted" in reason
    assert choose_pre(folder_of(greedy, tmp_path / "plain", SMOLLM))[0] == "smollm"


@needs_llamacpp
def test_an_unknown_structure_that_splits_alike_needs_no_acceptance(greedy: dict[str, Any], tmp_path: Path) -> None:
    twice = split(MARKS.replace(r"\s+(?!\S)|\s+", r"\s+(?!\S)|\s+|\s"))
    plain = json.loads(json.dumps(twice).replace(r"\\p{M}", ""))
    folder = folder_of(greedy, tmp_path / "m", sequence(plain, byte_level(use_regex=False)))
    pre, reason = choose_pre(folder)
    assert pre == "gpt-2"
    assert "all kinds alike" in reason


@needs_llamacpp
def test_export_asks(pico: Path, greedy: dict[str, Any], tmp_path: Path) -> None:
    folder = model_of(tmp_path / "m", pico, "Llama", vocab_size=3001)
    document = json.dumps({**greedy, "pre_tokenizer": REPAIRED}, ensure_ascii=False)
    (folder / "tokenizer.json").write_text(document, encoding="utf-8")
    with pytest.raises(ModelError, match=r"no `tokenizer\.ggml\.pre` of llama\.cpp splits like this"):
        export_gguf(folder, tmp_path / "out", quant=("f16",))
    assert not (tmp_path / "out").exists()
    facts = export_gguf(folder, tmp_path / "out", quant=("f16",), accept_mismatch=0.9)["files"]["f16"]
    assert facts["pre"] in FEW
    assert "which was accepted" in facts["pre_reason"]


def test_without_llamacpp_the_structure_decides(
    greedy: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pre_rates.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"no pre type .*pip install 'langgraft\[llamacpp\]'"):
        choose_pre(folder_of(greedy, tmp_path / "m", REPAIRED), accept_mismatch=0.5)


@needs_llamacpp
def test_gate_of_a_tokenizer_without_a_model(greedy: dict[str, Any], tmp_path: Path) -> None:
    alike = tokenizer_gate(folder_of(greedy, tmp_path / "a", SMOLLM), ["some text"])
    assert (alike["passed"], alike["value"], alike["bound"]) == (True, "0 of 401 lines differ", "0")
    assert alike["detail"] == "as `smollm`"
    informs = tokenizer_gate(folder_of(greedy, tmp_path / "b", REPAIRED))
    assert (informs["passed"], informs["bound"]) == (True, "none")
    assert informs["value"].startswith("best `")
    odd = folder_of(greedy, tmp_path / "c", SMOLLM, normalizer={"type": "Lowercase"})
    with pytest.raises(ModelError, match="normalises text with Lowercase"):
        tokenizer_gate(odd)
    bare = folder_of(greedy, tmp_path / "d", SMOLLM, model={"type": "Unigram", "vocab": []}, decoder=None)
    assert tokenizer_gate(bare)["value"] == "no GGUF file"


@needs_llamacpp
def test_the_gate_fails_when_llamacpp_disagrees(
    greedy: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(greedy, tmp_path / "m", SMOLLM)
    write = pre_rates.write_vocabulary
    monkeypatch.setattr(pre_rates, "write_vocabulary", lambda *a, **_: write(*a, pre="gpt-2"))
    assert not tokenizer_gate(folder)["passed"]
    own = tokenizer_gate(folder, base=folder)
    assert own["passed"]
    assert own["detail"].endswith(" more differ in the base itself")
    right = folder_of(greedy, tmp_path / "base", SMOLLM)
    monkeypatch.setattr(
        pre_rates, "write_vocabulary", lambda *a, **_: write(*a, pre="gpt-2" if a[0] == folder else None)
    )
    assert not tokenizer_gate(folder, base=right)["passed"]


@needs_llamacpp
def test_ids_of_llamacpp(pico: Path, tmp_path: Path) -> None:
    shutil.copytree(pico, tmp_path / "m")
    (tmp_path / "m" / "config.json").unlink()  # a tokenizer folder has none
    lines = ["The quick 12", "  x"]
    ids = [load_tokenizer(pico).encode(line, add_special_tokens=False).ids for line in lines]
    assert llamacpp_ids(tmp_path / "m", lines) == ids
    assert llamacpp_ids(tmp_path / "m", lines, pre="gpt-2") is not None
    assert "llama_cpp" in sys.modules


def test_description() -> None:
    rates = pre_rates.Rates("x", {"code": (1, 2), "Hindi": (0, 2)})
    assert describe(rates) == "`x`: 25.0% of lines (code 50.0%; none of Hindi)"
    assert rates.as_dict() == {"pre": "x", "rate": 0.25, "kinds": {"code": 0.5, "Hindi": 0.0}}
