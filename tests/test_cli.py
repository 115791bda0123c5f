"""The command line: one sentence for bad input, JSON alone on stdout, honest exit codes."""

import gzip
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from command import Done, Finished, langgraft, leftovers
from pico import CANTONESE, ENGLISH, pico_recipe, sentences

from langgraft.tokenizer import prove


@pytest.fixture
def recipe(finished: Finished, tmp_path: Path) -> Path:
    """A recipe that has not run, with text of its own."""
    return pico_recipe(tmp_path, finished.recipe.parent.parent / "base")


@pytest.fixture
def quick_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try fewer code points: the proof over all of them is part of the finished run."""

    def fewer(old: Any, new: Any, scope: Any) -> prove.Gate:
        changed, tried = prove._changed(old, new, (chr(c) for c in range(0x800) if c not in scope))
        return prove.Gate(
            "some code points outside the scope unchanged", not changed, f"{len(changed)} of {tried}", "0"
        )

    monkeypatch.setattr(prove, "outside_scope", fewer)


def refused(done: Done, runs: Path, *, created: bool = False) -> str:
    """The one sentence of a refusal; nothing is half-written, and no run folder is made for what is known before."""
    assert done.code == 2, done.err
    assert done.out == ""
    assert not list(runs.rglob("stage.json"))
    assert not list(runs.rglob("report.*"))
    assert leftovers(runs) == []
    assert created == runs.exists()
    return done.sentence()


def run(recipe: Path, *arguments: str) -> tuple[Done, Path]:
    runs = recipe.with_name("runs")
    return langgraft("run", recipe, "--runs", runs, *arguments), runs


def test_help_lists_the_commands_that_exist() -> None:
    done = langgraft("--help")
    assert done.code == 0
    listed = [line.split()[0] for line in done.out.partition("Commands:")[2].splitlines() if line.strip()]
    assert sorted(listed) == sorted(
        [
            "new",
            "plan",
            "run",
            "status",
            "show",
            "corpus",
            "dropped",
            "advise",
            "tokenizer",
            "surgery",
            "verify",
            "evaluate",
            "export",
            "chat",
            "serve",
            "compare",
            "infer",
            "doctor",
            "launch",
            "train",
            "parallel",
            "prompts",
            "publish",
        ]
    )


def test_a_wrong_option_is_refused() -> None:
    done = langgraft("plan", "--recipy", "x.toml")
    assert done.code == 2
    assert "No such option" in done.err


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("pretrain.learnin_rate=1e-4", "unknown field `pretrain.learnin_rate`; did you mean `learning_rate`?"),
        ("pretrian.seed=1", "unknown field `pretrian`; did you mean `pretrain`?"),
        ("tokenizer.new_tokens=many", "`tokenizer.new_tokens`: input should be a valid integer (it is 'many')"),
        ("pretrain.tokens=0", "`pretrain.tokens`: input should be greater than or equal to 1 (it is 0)"),
        ("model.language=xxq", "unknown language 'xxq'"),
        ("model.base=/no/such/model", "base `/no/such/model` does not exist"),
        ("surgery.init=subword_meen", "surgery.init `subword_meen` is unknown; did you mean `subword_mean`?"),
        ("surgery.init=no_such.module:f", "there is no module `no_such.module` on the Python path"),
        ("surgery.options={scale = 2}", "surgery.init `subword_mean` has no option `scale`"),
        ("pretrain.batch_tokens=100", "must be a multiple of pretrain.sequence_length (32); 128 is"),
        ("pretrain.old_rows_learning_rate=0.5", "pretrain.old_rows_learning_rate (0.5) must be between 0 and"),
        ("evaluate.stride=600", "evaluate.stride (600) must not be above evaluate.window (512)"),
        ("corpus.dev=0", "corpus.dev is 0, but the tokenizer stage measures on the dev split"),
        ("corpus.test=0", "corpus.test is 0, but the evaluate stage measures on the test split"),
        ("export.parity_lines=100000", "the built-in parity text has"),
        ("compute.device=tpu", "compute.device: `tpu` is not available on this machine"),
        ("nonsense", "--set nonsense: write section.field=value"),
    ],
)
def test_a_wrong_field_is_refused_before_anything_is_written(recipe: Path, setting: str, sentence: str) -> None:
    done, runs = run(recipe, "--set", setting)
    assert sentence in refused(done, runs)


def test_replay_from_a_corpus_that_is_not_there(recipe: Path) -> None:
    text = recipe.read_text(encoding="utf-8")
    start = text.index("[[corpus.source]]")
    recipe.write_text(text[:start] + text[text.index("[corpus]", start) :], encoding="utf-8")
    done, runs = run(recipe, "--set", "pretrain.replay=corpus")
    assert 'pretrain.replay = "corpus" needs text under [[corpus.source]]' in refused(done, runs)


def test_an_unknown_stage(recipe: Path) -> None:
    done, runs = run(recipe, "--only", "pretrian")
    expected = "the recipe has no stage `pretrian`; it has corpus, tokenizer, surgery, pretrain, evaluate, export"
    assert refused(done, runs) == expected


def test_recipe_files_that_cannot_be_read(tmp_path: Path) -> None:
    missing = langgraft("run", tmp_path / "no.toml").sentence()
    assert missing == f"recipe {tmp_path / 'no.toml'} does not exist; `langgraft new` writes one"
    (tmp_path / "broken.toml").write_text("[model\n")
    assert "broken.toml is not valid TOML" in langgraft("plan", tmp_path / "broken.toml").sentence()
    assert "is a folder" in langgraft("plan", tmp_path).sentence()


def test_a_runs_folder_that_is_a_file(recipe: Path) -> None:
    done = langgraft("run", recipe, "--runs", recipe)
    assert done.code == 2
    assert str(recipe) in done.sentence()


def test_a_missing_corpus_file(recipe: Path) -> None:
    recipe.with_name("yue.jsonl").rename(recipe.with_name("yue2.jsonl"))
    done, runs = run(recipe)
    assert refused(done, runs).startswith(
        f"{recipe.with_name('yue.jsonl')} does not exist; in the same folder there is"
    )


def test_an_empty_corpus(recipe: Path) -> None:
    recipe.with_name("yue.jsonl").write_text("")
    done, runs = run(recipe)
    assert refused(done, runs, created=True) == f"no document in {recipe.with_name('yue.jsonl')}"


def test_a_corpus_in_another_language(recipe: Path) -> None:
    lines = [json.dumps({"text": f"{text} Number {i}."}) for i in range(20) for text in ENGLISH]
    recipe.with_name("yue.jsonl").write_text("\n".join(lines))
    done, runs = run(recipe)
    sentence = refused(done, runs, created=True)
    assert "the text is not Cantonese (yue): only 0 of 120 documents look like it" in sentence
    assert "English" in sentence
    assert not list((runs / "pico").glob("corpus-*"))


def test_a_compressed_file_cut_short(recipe: Path) -> None:
    plain = recipe.with_name("yue.jsonl")
    # Poorly compressible, so that half a file still holds lines.
    packed = gzip.compress(plain.read_bytes())
    recipe.with_name("yue.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    plain.unlink()
    text = recipe.read_text(encoding="utf-8").replace("yue.jsonl", "yue.jsonl.gz")
    recipe.write_text(text.replace("[[corpus.target]]", "[[corpus.target]]\nstrict = true"), encoding="utf-8")
    done, runs = run(recipe)
    sentence = refused(done, runs, created=True)
    assert "yue.jsonl.gz is cut short after" in sentence
    assert sentence.endswith("get a complete copy of the file")
    recipe.write_text(text, encoding="utf-8")  # otherwise what came before the damage is kept, and told
    done, _ = run(recipe, "--until", "corpus")
    assert done.code == 0
    assert "damaged: " in done.err
    assert "documents before it are kept" in done.err


def test_a_base_that_is_no_causal_model(recipe: Path, tmp_path: Path) -> None:
    bert = tmp_path / "bert"
    bert.mkdir()
    (bert / "config.json").write_text(json.dumps({"architectures": ["BertForMaskedLM"], "model_type": "bert"}))
    for command in ("plan", "run"):
        done = langgraft(command, recipe, "--runs", tmp_path / "runs", "--set", f'model.base="{bert}"')
        assert f"{bert} is no causal language model (BertForMaskedLM)" in refused(done, tmp_path / "runs")


def test_a_tokenizer_that_does_not_match(recipe: Path, finished: Finished, tmp_path: Path) -> None:
    base = shutil.copytree(finished.recipe.parent.parent / "base", tmp_path / "mixed")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "vocab_size": 300}))
    done, runs = run(recipe, "--set", f'model.base="{base}"')
    assert f"tokenizer and model in {base} do not match" in refused(done, runs)


def test_an_invalid_line_is_counted_not_fatal(recipe: Path) -> None:
    with recipe.with_name("yue.jsonl").open("ab") as file:
        file.write(b'{"text": "\xe4\xbd"}\n')
    done, runs = run(recipe, "--until", "corpus", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["corpus"]["target"]["invalid_utf8"] == 1
    report = json.loads((runs / "pico" / "report.json").read_text(encoding="utf-8"))
    assert report["corpus"]["target"]["invalid_utf8"] == 1
    assert report["corpus"]["target"]["documents"] == 400


def test_a_gate_that_fails_is_exit_1_with_the_report(finished: Finished, tmp_path: Path) -> None:
    copy = finished.copy(tmp_path)
    done = copy.again("--set", "evaluate.gates.target_gain=0.99", "--json")
    assert done.code == 1
    assert "gate failed: Cantonese bits per byte at least 99% below the base" in done.sentence()
    failed = [gate["name"] for gate in json.loads(done.out)["gates"] if not gate["passed"]]
    assert len(failed) == 1
    assert langgraft("show", copy.run, "--json").out == done.out


def test_plan_as_json(finished: Finished) -> None:
    done = langgraft("plan", finished.recipe, "--runs", finished.runs, "--json", "--set", "surgery.seed=3")
    planned = json.loads(done.out)
    assert [(entry["stage"], entry["state"]) for entry in planned[:3]] == [
        ("corpus", "done"),
        ("tokenizer", "done"),
        ("surgery", "run"),
    ]
    assert planned[2]["reason"] == "surgery.seed: 0 -> 3"
    assert "surgery.seed: 0 -> 3" in done.err


def test_corpus(finished: Finished, tmp_path: Path) -> None:
    text = finished.recipe.with_name("yue.jsonl")
    arguments = ["corpus", text, "-o", tmp_path / "corpus", "--language", "yue", "--license", "CC0-1.0", "--json"]
    done = langgraft(*arguments)
    assert done.code == 0, done.err
    assert json.loads(done.out)["target"]["licenses"] == {"CC0-1.0": 400 - sum(
        facts["documents"] for facts in json.loads(done.out)["target"]["dropped"].values()
    )}  # fmt: skip
    assert (tmp_path / "corpus" / "target" / "train.jsonl.gz").is_file()
    again = langgraft(*arguments)
    assert again.code == 2
    assert "exists already" in again.sentence()
    assert langgraft("corpus", tmp_path / "no.txt", "-o", tmp_path / "x", "--language", "yue").code == 2
    assert not (tmp_path / "x").exists()


def test_nothing_of_the_users_is_replaced(finished: Finished, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    base, text, out = finished.recipe.parent.parent / "base", finished.recipe.with_name("yue.jsonl"), tmp_path / "mine"
    tokenizer = finished.stage("tokenizer") / "tokenizer"
    for command in (
        ["corpus", text, "--language", "yue"],
        ["tokenizer", "extend", "--base", base, "--corpus", text, "--language", "yue"],
        ["surgery", "--base", base, "--tokenizer", tokenizer],
        ["evaluate", "--models", base, "--models", base, "--target", text, "--language", "yue"],
        ["export", "--model", base],
    ):
        done = langgraft(*command, "-o", out)
        assert (done.code, done.sentence()[: len(f"{out} exists")]) == (2, f"{out} exists")
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]


def test_advise(finished: Finished, tmp_path: Path) -> None:
    base, text, out = finished.recipe.parent.parent / "base", finished.recipe.with_name("yue.jsonl"), tmp_path / "out"
    command = ["advise", "--base", base, "--corpus", text, "--language", "yue", "-o", out]
    done = langgraft(*command, "--tokens", 10**9, "--json")
    assert done.code == 0, done.err
    advice = json.loads(done.out)
    assert advice == json.loads((out / "advice.json").read_text(encoding="utf-8"))
    assert advice["headline"] in done.err
    assert advice["headline"] in (out / "advice.html").read_text(encoding="utf-8")
    assert advice["cost"]["budget_tokens"] == 10**9
    assert advice["base"] == str(base)
    assert langgraft(*command).sentence().startswith(f"{out} exists already")
    other = langgraft(*command[:-1], tmp_path / "x", "--source-language", "ja")
    assert (other.code, other.sentence()) == (2, "--source-language ja needs text in Japanese: give --source too")
    assert not (tmp_path / "x").exists()


@pytest.mark.usefixtures("quick_proof")
def test_tokenizer_extend_and_report(finished: Finished, tmp_path: Path) -> None:
    base, text, out = finished.recipe.parent.parent / "base", finished.recipe.with_name("yue.jsonl"), tmp_path / "tok"
    extend = ["tokenizer", "extend", "--base", base, "--corpus", text, "--new-tokens", 40, "--language", "yue"]
    done = langgraft(*extend, "-o", out, "--json")
    assert done.code == 0, done.err
    extended = json.loads(done.out)
    assert extended["new_tokens"] == 40
    assert extended["fertility"]["extended"]["tokens"] < extended["fertility"]["base"]["tokens"]
    report = ["tokenizer", "report", "--base", base, "--extended", out, "--text", text, "--language", "yue", "--json"]
    assert langgraft(*report).code == 0

    data = json.loads((out / "tokenizer.json").read_text(encoding="utf-8"))
    vocab = data["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    (out / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    drifted = langgraft(*report)
    assert drifted.code == 2
    assert "gives other ids than when it was made" in drifted.sentence()
    (out / "langgraft_tokenizer_pin.json").unlink()
    failed = langgraft(*report)
    assert failed.code == 1
    assert next(gate["name"] for gate in json.loads(failed.out)["gates"] if not gate["passed"]) == "old ids unchanged"
    assert re.search("FAIL  old ids unchanged +2 changed", failed.err)


def test_surgery_and_export(finished: Finished, tmp_path: Path) -> None:
    base, tokenizer = finished.recipe.parent.parent / "base", finished.stage("tokenizer") / "tokenizer"
    done = langgraft(
        "surgery", "--base", base, "--tokenizer", tokenizer, "-o", tmp_path / "model", "--no-load", "--json"
    )
    assert done.code == 0, done.err
    assert json.loads(done.out)["new_tokens"] == 50
    exported = langgraft("export", "--model", tmp_path / "model", "-o", tmp_path / "hf", "--json")
    assert exported.code == 0, exported.err
    assert json.loads(exported.out)["format"] == "hf"
    assert (tmp_path / "hf" / "model.safetensors").is_file()
    unknown = langgraft("export", "--model", tmp_path / "model", "--to", "ggfu", "-o", tmp_path / "x").sentence()
    assert unknown == "export `ggfu` is unknown; did you mean `gguf`?"
    quant = langgraft("export", "--model", tmp_path / "model", "--to", "gguf", "--quant", "f61", "-o", tmp_path / "x")
    assert quant.sentence() == "--quant f61 is unknown; did you mean `f16`?"
    assert not (tmp_path / "x").exists()


def test_surgery_with_another_bases_tokenizer(finished: Finished, pico: Path, tmp_path: Path) -> None:
    tokenizer = shutil.copytree(finished.stage("tokenizer") / "tokenizer", tmp_path / "tokenizer")
    data = json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8"))
    first, second = list(data["model"]["vocab"])[300:302]
    data["model"]["vocab"][first], data["model"]["vocab"][second] = 301, 300
    (tokenizer / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    done = langgraft("surgery", "--base", pico, "--tokenizer", tokenizer, "-o", tmp_path / "out")
    assert done.code == 2
    assert done.sentence()
    assert not (tmp_path / "out").exists()


def test_export_to_gguf_is_proven_in_llama_cpp(finished: Finished, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    model = finished.stage("pretrain") / "model"
    done = langgraft("export", "--model", model, "--to", "gguf", "--quant", "q8_0", "-o", tmp_path / "gguf", "--json")
    assert done.code == 0, done.err
    values = [gate["value"] for gate in json.loads(done.out)["gates"]]
    assert "0 of 2,000 lines differ" in values
    assert "pass  llama.cpp gives the same token ids (q8_0)" in done.err


def test_evaluate(finished: Finished, tmp_path: Path) -> None:
    base, model = finished.recipe.parent.parent / "base", finished.stage("pretrain") / "model"
    text = tmp_path / "held-out.txt"
    text.write_text("\n".join([*sentences(30), *CANTONESE]), encoding="utf-8")
    common = ["--target", text, "--language", "yue", "--source", finished.recipe.with_name("en.txt"), "--json"]
    done = langgraft("evaluate", "--models", base, "--models", model, *common, "-o", tmp_path / "results")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["bits_per_byte"]["target"]["change"]["high"] < 0
    assert set(result["tokens"]) == {"target", "source"}
    assert json.loads((tmp_path / "results" / "results.json").read_text(encoding="utf-8")) == result
    once = langgraft("evaluate", "--models", base, *common, "-o", tmp_path / "other")
    assert once.code == 0, once.err
    alone = json.loads(once.out)["bits_per_byte"]["target"]
    assert alone["models"]["base"] == result["bits_per_byte"]["target"]["base"]
    assert (alone["changes"], "change" in alone) == ({}, False)


def test_new_writes_a_recipe_that_plans(finished: Finished, tmp_path: Path) -> None:
    base, text, out = (
        finished.recipe.parent.parent / "base",
        finished.recipe.with_name("yue.jsonl"),
        tmp_path / "r.toml",
    )
    done = langgraft("new", "--base", base, "--language", "yue", "--corpus", text, "-o", out, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["code"] == "yue"
    planned = langgraft("plan", out, "--runs", tmp_path / "runs", "--json")
    assert [entry["state"] for entry in json.loads(planned.out)] == ["run"] * 6
    assert not (tmp_path / "runs").exists()
    assert (
        "exists already"
        in langgraft("new", "--base", base, "--language", "yue", "--corpus", text, "-o", out).sentence()
    )


def test_status_and_show(finished: Finished, tmp_path: Path) -> None:
    done = langgraft("status", finished.runs, "--json")
    (one,) = json.loads(done.out)
    assert one["done"] == ["corpus", "tokenizer", "surgery", "pretrain", "evaluate", "export"]
    assert one["running"] is False
    shown = langgraft("show", finished.run)
    assert shown.code == 0
    assert str((finished.run / "report.html").resolve()) in shown.err
    assert langgraft("show", finished.run, "--json").out == (finished.runs.parent / "stdout.json").read_text("utf-8")
    assert "has no report yet" in langgraft("show", tmp_path).sentence()
    assert "holds no run" in langgraft("status", tmp_path).sentence()
