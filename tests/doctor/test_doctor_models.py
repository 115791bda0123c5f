"""The doctor on model folders: each defect that was planted is named, and a healthy model has none."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command import ROOT, Finished, langgraft
from pico import pico_writer
from safetensors.torch import load_file, save_file

from langgraft.doctor.checks import CHECKS, diagnose, function_of
from langgraft.doctor.consult import consult
from langgraft.doctor.subject import subject_of
from langgraft.errors import InputError, RecipeError
from langgraft.evaluation.cautions import Finding
from langgraft.surgery.resize import new_token_pieces


@pytest.fixture
def sick(finished: Finished, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of a trained pico model that a test may spoil, and its base."""
    return Path(shutil.copytree(finished.stage("pretrain") / "model", tmp_path / "model")), _base(finished)


def _base(finished: Finished) -> Path:
    return finished.recipe.parent.parent / "base"


def _found(model: Path, base: Path | None = None, **options: Any) -> list[Finding]:
    return diagnose(subject_of(model, base=str(base) if base else None), **options)


def _names(found: list[Finding]) -> set[str]:
    return {finding.check for finding in found}


def _change_weights(model: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    weights = load_file(model / "model.safetensors")
    change(weights)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, model / "model.safetensors")


def _change_json(path: Path, **fields: Any) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    data.update(fields)
    data = {key: value for key, value in data.items() if value != "gone"}
    path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")


EMBEDDING = "model.embed_tokens.weight"


def test_a_healthy_model_has_no_findings(finished: Finished) -> None:
    for name in ("surgery", "pretrain"):
        assert _found(finished.stage(name) / "model", _base(finished)) == []
        assert _found(finished.stage(name) / "model") == []
    assert _found(_base(finished)) == []


def test_an_untied_head_is_named(sick: tuple[Path, Path]) -> None:
    model, base = sick
    _change_weights(model, lambda w: w.update({"lm_head.weight": w[EMBEDDING] * 1.5}))
    (finding,) = _found(model, base)
    assert finding.check == "tied-head"
    assert "config says tied" in finding.problem
    assert "ensure_weight_tying" in finding.fix
    assert _names(_found(model)) == {"tied-head"}


def test_a_head_that_was_untied_in_the_config_too_is_named_against_the_base(sick: tuple[Path, Path]) -> None:
    model, base = sick
    _change_weights(model, lambda w: w.update({"lm_head.weight": w[EMBEDDING].clone()}))
    _change_json(model / "config.json", tie_word_embeddings=False)
    (finding,) = _found(model, base)
    assert (finding.check, finding.figure) == ("tied-head", "tie_word_embeddings = false")


def test_a_second_copy_of_a_tied_matrix_is_no_defect(sick: tuple[Path, Path]) -> None:
    model, base = sick
    _change_weights(model, lambda w: w.update({"lm_head.weight": w[EMBEDDING].clone()}))
    assert _found(model, base) == []


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_zero_and_endless_rows_are_named(sick: tuple[Path, Path], value: float) -> None:
    model, base = sick
    _, first = new_token_pieces(base, model)
    _change_weights(model, lambda w: w[EMBEDDING][first + 3 : first + 7].fill_(value))
    found = [finding for finding in _found(model, base) if finding.check == "dead-rows"]
    assert found[0].figure.startswith("4 of ")
    assert ("zero" if value == 0 else "not finite") in found[0].problem
    assert "dead-rows" in _names(_found(model))


def test_one_row_for_all_new_tokens_is_named(sick: tuple[Path, Path]) -> None:
    model, base = sick
    pieces, first = new_token_pieces(base, model)
    _change_weights(model, lambda w: w[EMBEDDING][first : first + len(pieces)].copy_(w[EMBEDDING][first].clone()))
    assert "1 different rows" in next(f for f in _found(model, base) if f.check == "dead-rows").figure


@pytest.mark.parametrize("stage", ["surgery", "pretrain"])
@pytest.mark.parametrize("by", [1, -3, None])
def test_rows_of_other_tokens_are_named(finished: Finished, tmp_path: Path, stage: str, by: int | None) -> None:
    model = Path(shutil.copytree(finished.stage(stage) / "model", tmp_path / "model"))
    pieces, first = new_token_pieces(_base(finished), model)

    def move(weights: dict[str, torch.Tensor]) -> None:
        rows = weights[EMBEDDING][first : first + len(pieces)].clone()
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
        weights[EMBEDDING][first : first + len(pieces)] = rows.roll(by, 0) if by else rows[order]

    _change_weights(model, move)
    (finding,) = _found(model, _base(finished))
    assert finding.check == "shifted-ids"
    assert (f"shifted by {-by:+d}" in finding.problem) if by else ("shifted" not in finding.problem)


def test_rows_that_started_at_random_are_not_called_shifted(sick: tuple[Path, Path]) -> None:
    model, base = sick
    pieces, first = new_token_pieces(base, model)
    _change_weights(model, lambda w: w[EMBEDDING][first : first + len(pieces)].normal_(std=0.02))
    assert _found(model, base) == []


@pytest.mark.parametrize("template", ["gone", "{{ messages }}"])
def test_a_wrong_template_is_named(sick: tuple[Path, Path], template: str) -> None:
    model, base = sick
    (model / "chat_template.jinja").unlink(missing_ok=True)
    _change_json(model / "tokenizer_config.json", chat_template=template)
    (finding,) = _found(model, base)
    assert finding.check == "template"
    assert ("missing" in finding.problem) == (template == "gone")


def test_a_template_that_the_base_lacks_is_named(sick: tuple[Path, Path], tmp_path: Path) -> None:
    model, base = sick
    bare = Path(shutil.copytree(base, tmp_path / "bare"))
    (bare / "chat_template.jinja").unlink(missing_ok=True)
    _change_json(bare / "tokenizer_config.json", chat_template="gone")
    assert "the base has none" in next(f for f in _found(model, bare) if f.check == "template").problem


def test_special_ids_are_compared_with_tokens_and_base(sick: tuple[Path, Path]) -> None:
    model, base = sick
    _change_json(model / "generation_config.json", eos_token_id=0, pad_token_id=99_999)
    found = [finding for finding in _found(model, base) if finding.check == "special-ids"]
    assert {finding.problem for finding in found} == {
        "eos_token_id is not the base's", "pad_token_id is not the base's", "pad_token_id names no token"
    }  # fmt: skip
    _change_json(model / "config.json", eos_token_id=0)
    assert any("config.json" in f.where and "eos" in f.problem for f in _found(model, base))


def test_a_tokenizer_that_drifted_is_named(sick: tuple[Path, Path]) -> None:
    model, base = sick
    data = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
    vocab = data["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    (model / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    found = _found(model, base)
    assert _names(found) >= {"tokenizer-drift", "special-ids"}
    assert next(f for f in found if f.check == "special-ids").figure.startswith("2 of ")


def test_a_tokenizer_without_rows_and_padding_without_a_mask_are_named(sick: tuple[Path, Path]) -> None:
    model, base = sick
    _change_json(model / "generation_config.json", suppress_tokens="gone")
    (finding,) = _found(model, base)
    assert (finding.check, finding.problem) == ("fit", "padding rows may be generated")
    _change_json(model / "config.json", vocab_size=300)
    assert "do not match" in next(f for f in _found(model, base) if f.check == "fit").problem


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_missing_and_damaged_files_are_named_once(sick: tuple[Path, Path], file: str) -> None:
    model, base = sick
    content = (model / file).read_bytes()
    if file == "model.safetensors":
        (model / file).write_bytes(content[:-100])
        found = _found(model, base)
        assert sum("cut short" in finding.problem for finding in found) == 1
    (model / file).unlink()
    assert any(finding.check == "files" and file in finding.problem for finding in _found(model, base))


def test_an_export_that_changed_is_named(finished: Finished, tmp_path: Path) -> None:
    model = Path(shutil.copytree(finished.stage("export") / "hf", tmp_path / "hf"))
    assert _found(model, _base(finished)) == []
    (model / "README.md").write_text("another", encoding="utf-8")
    (finding,) = _found(model, _base(finished))
    assert (finding.check, "README.md" in finding.figure) == ("manifest", True)


def test_a_model_that_answers_in_english_is_named(tmp_path: Path) -> None:
    model = pico_writer(tmp_path / "english")
    found = diagnose(subject_of(model, language="yue"), deep=True, only=["answers"])
    assert [finding.check for finding in found] == ["language"]
    assert "does not answer in Cantonese, mostly in English" in found[0].problem
    assert diagnose(subject_of(model, language="yue")) == []  # the model writes only when asked


def test_the_command_prints_findings_and_exits_1(sick: tuple[Path, Path]) -> None:
    model, base = sick
    healthy = langgraft("doctor", model, "--base", base, "--json")
    assert healthy.code == 0, healthy.err
    assert json.loads(healthy.out)[0]["findings"] == []
    assert "nothing wrong" in healthy.err
    _change_weights(model, lambda w: w[EMBEDDING][-200:].fill_(0))
    done = langgraft("doctor", model, "--base", base, "--only", "dead-rows", "--json")
    assert done.code == 1
    (result,) = json.loads(done.out)
    assert result["checks"] == ["dead-rows"]
    assert set(result["findings"][0]) == {"check", "problem", "where", "figure", "fix"}
    assert "✗ dead-rows: rows of tokens are zero" in done.err


def test_what_cannot_be_judged_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        subject_of(tmp_path / "none")
    (tmp_path / "text.txt").write_text("x", encoding="utf-8")
    with pytest.raises(InputError, match="is no run, no model folder and no recipe"):
        subject_of(tmp_path / "text.txt")
    with pytest.raises(RecipeError, match="no such check"):
        consult(tmp_path, only=["dead-row"])
    with pytest.raises(InputError, match="holds no run"):
        consult(None, runs=tmp_path)
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="must be a hub folder"):
        subject_of(tmp_path, base="someone/unknown")


def test_every_row_of_the_table_has_a_function_and_is_in_the_docs() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    text = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
    for check in CHECKS:
        assert function_of(check).__doc__, check.name
        assert f"| `{check.name}` | {check.looks_for} |" in text
