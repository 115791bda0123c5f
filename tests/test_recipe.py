"""Recipes: strict, with one sentence per mistake that names the field."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from langgraft.errors import RecipeError
from langgraft.recipe import ComputeSection, Corpus, Pretrain, Recipe, Section
from langgraft.recipe_file import fields, load_recipe, non_default, parse_recipe, section_type

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.toml"))
GOOD = """
name = "run"
[model]
base = "folder"
language = "yue"
[[corpus.target]]
path = "a.txt"
[[corpus.target]]
path = "b.txt"
[pretrain]
"""


def load(tmp_path: Path, text: str, *overrides: str) -> Recipe:
    path = tmp_path / "my-run.toml"
    path.write_text(text, encoding="utf-8")
    return load_recipe(path, overrides)


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_shipped_recipes_load(path: Path) -> None:
    assert load_recipe(path).name == path.stem


def test_there_are_shipped_recipes() -> None:
    assert RECIPES


def test_a_small_recipe_has_defaults(tmp_path: Path) -> None:
    recipe = load(tmp_path, GOOD)
    assert [t.path for t in recipe.corpus.target] == ["a.txt", "b.txt"]
    assert recipe.pretrain == Pretrain()
    assert recipe.evaluate is None
    assert load(tmp_path, GOOD.replace('name = "run"\n', "")).name == "my-run"


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("[pretrain]", "[pretrian]", "unknown field `pretrian`; did you mean `pretrain`?"),
        ("[pretrain]", "[pretrain]\nlerning_rate = 1e-4",
         "unknown field `pretrain.lerning_rate`; did you mean `learning_rate`?"),
        ("[pretrain]", "[evaluate.gates]\ntarget_gian = 0.1",
         "unknown field `evaluate.gates.target_gian`; did you mean `target_gain`?"),
        ("[pretrain]", "[evaluate]\nprompts.traget = []",
         "unknown field `evaluate.prompts.traget`; did you mean `target`?"),
        ('"b.txt"', '"b.txt"\nreadr = "json"', "unknown field `corpus.target.readr` (entry 2); did you mean `reader`?"),
        ("[pretrain]", "[compute]\nzzz = 1", "unknown field `compute.zzz`; choose one of "),
        ("[pretrain]", "[compute.slurm.stages.corpus]\ntme = '1'",
         "unknown field `compute.slurm.stages.corpus.tme`; did you mean `time`?"),
        ("[pretrain]", "[compute.slurm]\ntime = '2 hours'", "`compute.slurm.time`: string should match pattern"),
        ('language = "yue"', "", "`model.language` is missing; add it"),
        ("[model]", "[surgery]", "`model` is missing; add it"),
        ('path = "b.txt"', 'name = "b"', "`corpus.target.path` (entry 2) is missing; add it"),
        ("[pretrain]", '[pretrain]\ntokens = "many"',
         "`pretrain.tokens`: input should be a valid integer (it is 'many')"),
        ("[pretrain]", "[pretrain]\ntokens = 1.5", "`pretrain.tokens`: input should be a valid integer (it is 1.5)"),
        ("[pretrain]", "[pretrain]\nlearning_rate = true", "`pretrain.learning_rate`: input should be a valid number"),
        ("[pretrain]", "[pretrain]\nlearning_rate = inf", "`pretrain.learning_rate`: input should be a finite number"),
        ("[pretrain]", "[pretrain]\nlearning_rate = -1",
         "`pretrain.learning_rate`: input should be greater than 0 (it is -1.0)"),
        ("[pretrain]", "[pretrain]\nreplay_ratio = 1",
         "`pretrain.replay_ratio`: input should be less than 1 (it is 1.0)"),
        ("[pretrain]", '[pretrain]\nreplay = "slef"',
         "`pretrain.replay`: input should be 'self', 'corpus' or 'none' (it is 'slef')"),
        ("[pretrain]", '[export]\nto = ["gguff"]',
         "`export.to` (entry 1): input should be 'hf', 'gguf', 'ollama' or 'adapter' (it is 'gguff')"),
        ("[pretrain]", "[tokenizer]\nrepair_marks = 1",
         "`tokenizer.repair_marks`: input should be a valid boolean (it is 1)"),
        ("[pretrain]", "[[pretrain]]", "`pretrain` is a section; write its fields below [pretrain]"),
        ('name = "run"', 'name = "run"\nevaluate = 3', "`evaluate` is a section; write its fields below [evaluate]"),
        ('name = "run"', 'name = "../run"', "`name`: string should match pattern"),
    ],
)  # fmt: skip
def test_every_mistake_is_one_sentence_on_its_field(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    assert old in GOOD
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, GOOD.replace(old, new, 1))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'my-run.toml'}: ")
    assert sentence in message
    assert "\n" not in message


def test_no_target_text_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"`corpus.target`: list should have at least 1 item"):
        load(tmp_path, GOOD[: GOOD.index("[[corpus")] + "[corpus]\ntarget = []\n")


@pytest.mark.parametrize("text", ["name = \n", "[model\n", "x = 1\nx = 2\n"])
def test_bad_toml_names_file_and_place(tmp_path: Path, text: str) -> None:
    with pytest.raises(RecipeError, match=r"my-run\.toml is not valid TOML: .*line \d"):
        load(tmp_path, text)


def test_a_file_in_another_encoding_is_no_toml(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_bytes('name = "é"'.encode("latin-1"))
    with pytest.raises(RecipeError, match=r"r\.toml is not valid TOML"):
        load_recipe(path)


def test_missing_files_folders_and_odd_paths(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none\.toml does not exist; `langgraft new` writes one"):
        load_recipe(tmp_path / "none.toml")
    with pytest.raises(RecipeError, match="is a folder; name the recipe file in it"):
        load_recipe(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(RecipeError, match=r"recipe .* cannot be read: Not a directory"):
        load_recipe(tmp_path / "file" / "r.toml")


def test_overrides(tmp_path: Path) -> None:
    recipe = load(
        tmp_path, GOOD, "pretrain.learning_rate=1e-3", "model.language=hi", "evaluate.gates.source_loss=1",
        'surgery.options={scale = 2}', "tokenizer.repair_marks=false", "name=other", " pretrain.seed = 7",
    )  # fmt: skip
    assert recipe.pretrain is not None
    assert recipe.evaluate is not None
    assert recipe.pretrain.learning_rate == 1e-3
    assert recipe.pretrain.seed == 7
    assert recipe.model.language == "hi"
    assert recipe.evaluate.gates.source_loss == 1.0
    assert recipe.surgery.options == {"scale": 2}
    assert recipe.tokenizer.repair_marks is False
    assert recipe.name == "other"


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("pretrain.tokens", "--set pretrain.tokens: write section.field=value"),
        ("=3", "--set =3: write section.field=value"),
        ("pretrain..tokens=3", "write section.field=value"),
        ("name.x=3", "--set name.x=3: `name` is not a section"),
        ("corpus.target.path=x", "`target` is not a section"),
        ("pretrain.tokns=3", "unknown field `pretrain.tokns`; did you mean `tokens`?"),
        ("pretrain.tokens=many", "`pretrain.tokens`: input should be a valid integer (it is 'many')"),
    ],
)
def test_bad_overrides_are_named(tmp_path: Path, override: str, sentence: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, GOOD, override)
    assert sentence in str(caught.value)


def test_integers_become_floats_and_nothing_else_is_converted() -> None:
    data: dict[str, Any] = {**tomllib.loads(GOOD), "pretrain": {"learning_rate": 1}, "corpus": {
        "target": [{"path": "a"}], "dev": 5}}  # fmt: skip
    recipe = parse_recipe(data, where="here")
    assert recipe.pretrain is not None
    assert isinstance(recipe.pretrain.learning_rate, float)
    assert isinstance(recipe.corpus.dev, float)
    with pytest.raises(RecipeError, match=r"here: `corpus.seed`"):
        parse_recipe({**data, "corpus": {"target": [{"path": "a"}], "seed": "1"}}, where="here")


def sections(model: type[BaseModel]) -> list[type[BaseModel]]:
    """A section and all below it, lists of sections too."""
    found = [model]
    for field in model.model_fields.values():
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(kind, type) and issubclass(kind, Section):
                found += sections(kind)
    return found


def test_every_field_and_section_is_explained() -> None:
    for section in sections(Recipe):
        assert (section.__doc__ or "").strip().endswith(".")
        for name, field in section.model_fields.items():
            if section_type(field.annotation) is None:
                assert (field.description or "").strip().endswith("."), f"{section.__name__}.{name}"


def test_fields_lists_them_all_for_the_documentation() -> None:
    listed = {name: (kind, default, text) for name, kind, default, text in fields(Recipe)}
    assert listed["pretrain.learning_rate"][:2] == ("float", 2e-4)
    assert listed["model.base"][:2] == ("str", "required")
    assert listed["evaluate.gates.source_loss"][1] == 0.05
    assert listed["export.to"][1] == ["hf"]
    assert all(text for _, _, text in listed.values())
    assert len(listed) > 50


def test_fingerprints_see_what_differs_from_defaults(tmp_path: Path) -> None:
    plain = load(tmp_path, GOOD)
    assert plain.pretrain is not None
    assert non_default(plain.pretrain) == {}
    changed = load(tmp_path, GOOD, "pretrain.tokens=10_000_000", "pretrain.seed=3")
    assert changed.pretrain is not None
    assert non_default(changed.pretrain) == {"seed": 3}


def test_how_and_where_stays_out_of_what_is_made(tmp_path: Path) -> None:
    """No section but [compute] holds a field of [compute], and setting those changes no other section.

    Surgery's `tensor_parallel` is another matter: how many rows the model gets, whoever trains it.
    """
    how = set(ComputeSection.model_fields) - {"tensor_parallel"}
    for section in sections(Recipe):
        if section is not ComputeSection:
            assert not how & set(section.model_fields), section.__name__
    overrides = ["compute.threads=3", "compute.device=cpu", "compute.dtype=bfloat16", "compute.micro_batch_rows=1"]
    plain, other = load(tmp_path, GOOD), load(tmp_path, GOOD, *overrides)
    assert other.compute != plain.compute
    for name in set(Recipe.model_fields) - {"compute", "name"}:
        mine, theirs = getattr(plain, name), getattr(other, name)
        assert (mine and non_default(mine)) == (theirs and non_default(theirs))


def test_recipes_do_not_change_after_they_are_read(tmp_path: Path) -> None:
    recipe = load(tmp_path, GOOD)
    with pytest.raises(ValueError, match="frozen"):
        recipe.corpus.seed = 3  # type: ignore[misc]
    assert Corpus.model_fields["target"].is_required()
