"""`export --to nemo-data`: what Megatron and NeMo train on, mixed as asked for."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from command import langgraft, leftovers
from pico import CANTONESE, ENGLISH, pico_tokenizer

from langgraft.corpus import indexed
from langgraft.corpus.document import Document
from langgraft.corpus.indexed import Indexed
from langgraft.errors import BusyError, CorpusError, RecipeError, TokenizerError
from langgraft.exporting.nemo import export_nemo_data
from langgraft.store import lock, sha256_file
from langgraft.tokenizer.files import load


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pico_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """What `langgraft corpus` leaves: two sides of three splits."""
    for side, texts in (("target", CANTONESE), ("source", ENGLISH)):
        for number, split in enumerate(("train", "dev", "test")):
            path = tmp_path / "corpus" / side / f"{split}.jsonl.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = [Document(text, str(i), "und", "s", "CC0").row() for i, text in enumerate(texts[2 * number :][:2])]
            path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return tmp_path / "corpus"


def texts_in(folder: Path, prefix: Path) -> list[str]:
    """Decoded documents; each ends with the separator, which stands nowhere else."""
    dataset, tokenizer, found = Indexed(prefix), load(folder), []
    for number in range(len(dataset)):
        ids = dataset[number].tolist()
        assert ids.index(0) == len(ids) - 1
        found.append(tokenizer.decode(ids[:-1]))
    return found


def test_a_prepared_corpus_gives_its_splits_and_a_mixture(folder: Path, prepared: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = export_nemo_data(folder, out, corpus=[str(prepared)])
    for side, texts in (("target", CANTONESE), ("source", ENGLISH)):
        for number, split in enumerate(("train", "dev", "test")):
            assert texts_in(folder, out / f"{side}-{split}_text_document") == texts[2 * number :][:2]
    mixture = json.loads((out / "per_split_data.json").read_text(encoding="utf-8"))
    assert mixture == summary["mixture"]
    assert list(mixture) == ["train", "valid", "test"]
    tokens = {side: summary["datasets"][f"{side}-train"]["tokens"] for side in ("target", "source")}
    assert mixture["train"][1::2] == [str(out / f"{side}-train_text_document") for side in tokens]
    assert [float(w) for w in mixture["train"][::2]] == pytest.approx(
        [n / sum(tokens.values()) for n in tokens.values()]
    )
    assert mixture["valid"][1].endswith("target-dev_text_document")
    assert summary["tokenizer"] == sha256_file(folder / "tokenizer.json")
    assert json.loads((out / "summary.json").read_text(encoding="utf-8")) == summary
    assert not leftovers(tmp_path)
    assert not (out / ".lock").exists()


def test_weights_of_ones_own(folder: Path, prepared: Path, tmp_path: Path) -> None:
    weights = {"target": 3.0, "source": 1.0}
    mixture = export_nemo_data(folder, tmp_path / "out", corpus=[str(prepared)], weights=weights)["mixture"]
    assert [blend[::2] for blend in mixture.values()] == [["0.75", "0.25"]] * 3


def test_any_corpus_is_training_text(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "my text.jsonl.gz").write_bytes(gzip.compress(json.dumps({"body": ENGLISH[0]}).encode()))
    (tmp_path / "b.txt").write_text("\n".join(CANTONESE), encoding="utf-8")
    paths = [str(tmp_path / "my text.jsonl.gz"), str(tmp_path / "b.txt")]
    out = tmp_path / "out"
    export_nemo_data(folder, out, corpus=paths, text_key="body", workers=2)
    assert texts_in(folder, out / "my_text_text_document") == ENGLISH[:1]
    assert texts_in(folder, out / "b_text_document") == CANTONESE
    mixture = json.loads((out / "per_split_data.json").read_text(encoding="utf-8"))
    assert (len(mixture["train"]), mixture["valid"], mixture["test"]) == (4, None, None)


def test_a_stopped_export_goes_on(
    folder: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_nemo_data(folder, tmp_path / "whole", corpus=[str(prepared)])
    original, calls = indexed._write_index, []

    def third(*arguments: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        original(*arguments)

    monkeypatch.setattr(indexed, "_write_index", third)
    with pytest.raises(KeyboardInterrupt):
        export_nemo_data(folder, tmp_path / "out", corpus=[str(prepared)])
    assert not (tmp_path / "out").exists()
    export_nemo_data(folder, tmp_path / "out", corpus=[str(prepared)])
    assert len(calls) == 3 + 4  # two of the six were whole already
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    for name in names:
        if not name.endswith(("summary.json", "per_split_data.json")):  # these name the folder
            assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_changed_corpus_is_written_anew(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, out = tmp_path / "a.txt", tmp_path / "out"
    path.write_text(ENGLISH[0], encoding="utf-8")
    monkeypatch.setattr("langgraft.exporting.nemo._mixture", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export_nemo_data(folder, out, corpus=[str(path)])
    monkeypatch.undo()
    path.write_text(ENGLISH[1], encoding="utf-8")
    os.utime(path, ns=(1, 1))
    export_nemo_data(folder, out, corpus=[str(path)])
    assert texts_in(folder, out / "a_text_document") == ENGLISH[1:2]


def test_two_at_once(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(ENGLISH[0], encoding="utf-8")
    with lock(tmp_path / ".tmp-out", what="export"), pytest.raises(BusyError, match="is in use by process"):
        export_nemo_data(folder, tmp_path / "out", corpus=[str(tmp_path / "a.txt")])


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"corpus": []}, "needs text: give --corpus"),
        ({"workers": 0}, "--workers 0 must be at least 1"),
        ({"weights": {"c": 1.0}}, "--weight c=1: there is no such dataset; there are a, b"),
        ({"weights": {"a": 0.0, "b": 1.0}}, "--weight a=0 must be above 0"),
        ({"weights": {"a": 1.0}}, "--weight is given, but not for b; give each a weight, or none"),
    ],
)
def test_bad_options(folder: Path, tmp_path: Path, more: dict[str, Any], sentence: str) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(ENGLISH[0], encoding="utf-8")
    options = {"corpus": [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")], **more}
    with pytest.raises(RecipeError, match=sentence):
        export_nemo_data(folder, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_names_and_splits_that_cannot_be(folder: Path, prepared: Path, tmp_path: Path) -> None:
    for name in ("x/a.txt", "y/a.md"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(ENGLISH[0], encoding="utf-8")
    with pytest.raises(RecipeError, match="would both be written as `a`"):
        export_nemo_data(folder, tmp_path / "o", corpus=[str(tmp_path / "x/a.txt"), str(tmp_path / "y/a.md")])
    for side in ("target", "source"):
        (prepared / side / "train.jsonl.gz").unlink()
    with pytest.raises(CorpusError, match="there is no training split"):
        export_nemo_data(folder, tmp_path / "o", corpus=[str(prepared)])
    with pytest.raises(TokenizerError, match=r"has no tokenizer\.json"):
        export_nemo_data(tmp_path, tmp_path / "o", corpus=[str(prepared)])


def test_the_command(folder: Path, prepared: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["export", "--to", "nemo-data", "--corpus", prepared, "-o", out]
    needed = langgraft(*command).sentence()
    assert needed == "--to nemo-data needs a tokenizer: give --tokenizer FOLDER, or --model FOLDER"
    weight = langgraft(*command, "--tokenizer", folder, "--weight", "target").sentence()
    assert weight == "--weight target must be name=number, such as --weight target=0.8"
    done = langgraft(*command, "--tokenizer", folder, "--weight", "target=3", "--weight", "source=1", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["format"] == "nemo-data"
    line = f"--train-data-path 0.75 {out}/target-train_text_document 0.25 {out}/source-train_text_document"
    assert line in done.err.splitlines()
    assert langgraft(*command, "--tokenizer", folder).sentence().startswith(f"{out} exists already")
    assert langgraft("export", "-o", tmp_path / "x").sentence().startswith("--to hf needs a model: give --model")


def test_damage_in_the_corpus_is_told(folder: Path, tmp_path: Path) -> None:
    whole = gzip.compress("".join(f"{i} {text}\n" for i in range(400) for text in ENGLISH).encode())
    (tmp_path / "a.txt.gz").write_bytes(whole[: len(whole) // 2])
    out = tmp_path / "out"
    done = langgraft("export", "--to", "nemo-data", "--model", folder, "--corpus", tmp_path / "a.txt.gz", "-o", out)
    assert done.code == 0, done.err
    assert "damaged: " in done.err
    assert f"--data-path 1 {out}/a_text_document" in done.err
