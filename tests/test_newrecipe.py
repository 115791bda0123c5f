"""`langgraft new`: a recipe that loads whatever the names look like, and that fits the text and the machine."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langgraft import newrecipe
from langgraft.errors import InputError, RecipeError
from langgraft.newrecipe import slug, write_recipe
from langgraft.recipe_file import load_recipe
from langgraft.text import languages


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A file of text whose name is not plain."""
    file = tmp_path / '我哋 "嘅" \\ 😀.txt'
    file.write_text("我哋今日去飲茶。\n" * 100, encoding="utf-8")
    return file


def test_it_loads_and_keeps_what_was_asked(pico: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "folder" / "r.toml"
    chosen = write_recipe(str(pico), "yue", [str(text)], [str(text)], out)
    recipe = load_recipe(out)
    assert [entry.path for entry in recipe.corpus.target] == [str(text)]
    assert [entry.path for entry in recipe.corpus.source] == [str(text)]
    assert (recipe.model.base, recipe.model.language, recipe.name) == (str(pico), "yue", "cantonese-model")
    assert recipe.pretrain is not None
    assert recipe.pretrain.tokens == chosen["tokens"]
    assert recipe.pretrain.tokens % recipe.pretrain.batch_tokens == 0
    assert f"langgraft run {out}" in out.read_text(encoding="utf-8")


def test_the_watch_it_proposes_can_be_had(pico: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.toml"
    write_recipe(str(pico), "yue", [str(text)], [str(text)], out)
    written = out.read_text(encoding="utf-8")
    assert "# [pretrain.retention] " in written
    out.write_text(written.replace("# [pretrain.retention] ", "[pretrain.retention] ").replace("# every =", "every ="))
    recipe = load_recipe(out)
    assert recipe.pretrain is not None
    steps = recipe.pretrain.tokens / recipe.pretrain.batch_tokens
    assert 1 <= recipe.pretrain.retention.every <= max(steps / 10, 1)


def test_the_stages_it_proposes_can_be_had(pico: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.toml"
    write_recipe(str(pico), "yue", [str(text)], [], out)
    written = out.read_text()
    assert '# path = "pairs.jsonl"          # {"en": "...", "yue": "..."}' in written
    for line in ("[[align.parallel]]", 'path = "pairs.jsonl"', "[[sft.data]]", 'path = "chats.jsonl"'):
        assert f"\n# {line}" in written
        written = written.replace(f"\n# {line}", f"\n{line}")
    out.write_text(written)
    recipe = load_recipe(out)
    assert recipe.align is not None
    assert recipe.sft is not None


def test_without_source_text_the_recipe_says_what_is_missing(pico: Path, text: Path, tmp_path: Path) -> None:
    write_recipe(str(pico), "yue", [str(text)], [], tmp_path / "r.toml")
    assert load_recipe(tmp_path / "r.toml").corpus.source == []
    assert "# [[corpus.source]]" in (tmp_path / "r.toml").read_text(encoding="utf-8")


def test_the_budget_fits_text_and_machine(
    pico: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = text.stat().st_size
    little = write_recipe(str(pico), "yue", [str(text)], [], tmp_path / "cpu.toml")
    assert size <= little["tokens"] <= size + little["batch"]
    monkeypatch.setattr(newrecipe, "_has_gpu", lambda: True)
    assert write_recipe(str(pico), "yue", [str(text)], [], tmp_path / "gpu.toml")["batch"] == 65_536


@pytest.mark.parametrize("preset", newrecipe.PRESETS)
def test_every_preset_loads_and_says_what_little_text_is_good_for(
    preset: str, pico: Path, text: Path, tmp_path: Path
) -> None:
    chosen = write_recipe(str(pico), "yue", [str(text)], [], tmp_path / "r.toml", preset=preset)
    recipe, wanted = load_recipe(tmp_path / "r.toml"), newrecipe.PRESETS[preset]
    assert recipe.evaluate is not None
    assert recipe.export is not None
    assert (recipe.corpus.dev, recipe.evaluate.documents) == (wanted.held_out, wanted.documents)
    assert recipe.evaluate.gates.source_loss == wanted.source_loss
    assert recipe.corpus.filters.quality is wanted.quality
    assert ("gguf" in recipe.export.to) is (preset == "production")
    assert chosen["preset"] == preset
    assert "the look of a language" in chosen["advice"]


def test_presets_differ_in_what_they_spend(pico: Path, tmp_path: Path) -> None:
    large = tmp_path / "large.txt"
    large.write_bytes(b"x" * 4_000_000)
    spent = [
        write_recipe(str(pico), "yue", [str(large)], [], tmp_path / f"{name}.toml", preset=name)["tokens"]
        for name in newrecipe.PRESETS
    ]
    assert spent[0] < spent[1] == spent[2] == 4 * 1_000_000 // 1024 * 1024 + 1024
    assert "8 hours" in (tmp_path / "research.toml").read_text(encoding="utf-8")
    with pytest.raises(RecipeError, match="preset `reserch` is unknown; did you mean `research`"):
        write_recipe(str(pico), "yue", [str(large)], [], tmp_path / "r.toml", preset="reserch")


@pytest.mark.parametrize("code", sorted(languages()))
def test_every_language_gives_a_valid_name(code: str) -> None:
    assert slug(languages()[code].name) != "run"


@given(st.text())
def test_a_slug_is_a_valid_name(text: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", slug(text))


def test_nothing_is_written_for_bad_input(pico: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.toml"
    for base, code, file in ((str(pico), "xxq", text), ("/no/model", "yue", text), (str(pico), "yue", tmp_path / "no")):
        with pytest.raises(InputError):
            write_recipe(base, code, [str(file)], [], out)
        assert not out.exists()
    out.write_text("mine")
    with pytest.raises(RecipeError, match="exists already"):
        write_recipe(str(pico), "yue", [str(text)], [], out)
    assert out.read_text() == "mine"
