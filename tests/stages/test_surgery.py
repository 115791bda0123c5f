"""The surgery stage: rows for new tokens, options of the method from the recipe."""

import json
from pathlib import Path

from command import Finished
from safetensors import safe_open


def embedding(folder: Path) -> list[list[float]]:
    with safe_open(folder / "model" / "model.safetensors", framework="pt") as file:
        return file.get_tensor("model.embed_tokens.weight").tolist()


def test_options_of_the_method_come_from_the_recipe(finished: Finished, tmp_path: Path) -> None:
    copy = finished.copy(tmp_path, without=("pretrain", "evaluate", "export"))
    before = copy.stage("surgery")
    summary = json.loads((before / "stage.json").read_text(encoding="utf-8"))["summary"]
    options = ["--set", "surgery.init=normal", "--set", "surgery.options={std = 5.0}", "--until", "surgery"]
    assert copy.again(*options).code == 0
    old, new = embedding(before), embedding(copy.stage("surgery"))
    first = summary["old_tokens"]
    assert old[:first] == new[:first]
    assert max(map(max, old[first:])) < 2 < max(map(max, new[first:]))


def test_rows_are_padded_as_asked(finished: Finished, tmp_path: Path) -> None:
    copy = finished.copy(tmp_path, without=("pretrain", "evaluate", "export"))
    assert copy.again("--set", "surgery.pad_to_multiple_of=100", "--until", "surgery").code == 0
    assert len(embedding(copy.stage("surgery"))) % 100 == 0
