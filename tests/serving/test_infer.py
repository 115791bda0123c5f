"""`langgraft infer`: rows in, rows out; failures with a reason; a killed run goes on with the same bytes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from command import ROOT, langgraft

from langgraft.errors import InputError
from langgraft.serving.generate import answer, chat_prompt, text_prompt
from langgraft.serving.infer import Task, infer, input_files
from langgraft.serving.model import LanguageModel
from langgraft.serving.sampling import Sampling

HOT = Sampling(max_tokens=6, temperature=1.5, seed=7)


def write(path: Path, rows: list[Any]) -> Path:
    """A JSONL file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    """Its rows."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_rows_of_every_kind_are_answered_through_the_template(model: LanguageModel, tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "the data set's own"}]
    rows = [
        {"id": 1, "prompt": "The quick"},
        {"id": 2, "instruction": "Say", "input": "Water", "output": "theirs"},
        {"id": 3, "messages": talk},
        "bare text",
        {"id": 5, "text": "नमस्ते"},
    ]
    greedy = Sampling(max_tokens=6, temperature=0)
    summary = infer(model, [write(tmp_path / "a.jsonl", rows)], tmp_path / "out", greedy, task=Task(system="Be brief."))
    found = read(tmp_path / "out" / "a.jsonl")
    system = {"role": "system", "content": "Be brief."}
    asked = ["The quick", "Say\n\nWater", "Hi", "bare text", "नमस्ते"]
    for row, text in zip(found, asked, strict=True):
        prompt = chat_prompt(model, [system, {"role": "user", "content": text}])
        wanted = answer(model, prompt, greedy, chat=True)
        assert (row["output"], row["tokens"]) == (wanted.text, len(wanted.tokens))
    assert found[1]["given_output"] == "theirs"
    assert found[3]["row"] == "bare text"
    assert summary["answered"] == summary["rows"] == 5


def test_failures_keep_their_rows_and_reasons(model: LanguageModel, tmp_path: Path) -> None:
    file = write(
        tmp_path / "a.jsonl", [{"prompt": "x"}, {"other": 1}, 5, {"prompt": "water " * 200}, {"messages": [1]}]
    )
    with file.open("ab") as more:
        more.write(b'{"prompt": "cut\n{"prompt": 3}\n{"prompt": "\\ud800"}\n')
    summary = infer(model, [file], tmp_path / "out", HOT)
    errors = [row.get("error", "") for row in read(tmp_path / "out" / "a.jsonl")]
    wanted = [
        "",
        "none of",
        "neither an object",
        "reads at most",
        "list of",
        "line 6 is no JSON",
        "neither a text",
        "half",
    ]
    assert len(errors) == len(wanted)
    assert all(part in error for part, error in zip(wanted, errors, strict=True))
    assert (summary["failed"], sum(summary["reasons"].values())) == (7, 7)


def test_a_run_in_two_parts_gives_the_bytes_of_a_run_in_one(model: LanguageModel, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write(folder / "a.jsonl", [{"prompt": f"number {i}"} for i in range(6)])
    (folder / "deep").mkdir()
    (folder / "deep" / "b.json").write_text(json.dumps(8 * [{"prompt": "The"}]))
    infer(model, [folder], tmp_path / "whole", HOT, identity="m")
    infer(model, [folder], tmp_path / "part", HOT, identity="m")
    wanted = {name: (tmp_path / "whole" / name).read_bytes() for name in ("a.jsonl", "deep/b.jsonl")}
    cut = tmp_path / "part" / "a.jsonl"
    cut.write_bytes(cut.read_bytes()[:-9] if len(read(cut)) else b"")
    (tmp_path / "part" / "deep" / "b.jsonl").unlink()
    infer(model, [folder], tmp_path / "part", HOT, identity="m")
    assert {name: (tmp_path / "part" / name).read_bytes() for name in wanted} == wanted
    outputs = [row["output"] for row in read(tmp_path / "whole" / "deep" / "b.jsonl")]
    assert len(set(outputs)) > 1, "the same prompt twice is drawn twice"
    for changed in ({"identity": "other"}, {"task": Task(chat=False)}):
        with pytest.raises(InputError, match="was begun with another"):
            infer(model, [folder], tmp_path / "part", HOT, **{"identity": "m", **changed})


def test_texts_are_continued(model: LanguageModel, tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [{"line": "The quick brown"}, {"line": [{"role": "user", "content": "x"}]}])
    greedy = Sampling(max_tokens=12, temperature=0)
    infer(model, [file], tmp_path / "out", greedy, task=Task("line", chat=False))
    first, second = read(tmp_path / "out" / "a.jsonl")
    assert first["output"] == answer(model, text_prompt(model, "The quick brown"), greedy).text
    assert "--plain continues texts" in second["error"]


def test_inputs_that_cannot_be_used_are_told(model: LanguageModel, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.json").write_text("{")
    one, two = write(tmp_path / "1" / "a.jsonl", ["x"]), write(tmp_path / "2" / "a.jsonl", ["x"])
    for paths, message in (
        ([tmp_path / "none"], "does not exist"),
        ([tmp_path / "empty"], "no .json or .jsonl"),
        ([one, two], "both be written"),
    ):
        with pytest.raises(InputError, match=message):
            input_files(paths)
    with pytest.raises(InputError, match="not valid JSON"):
        infer(model, [tmp_path / "bad.json"], tmp_path / "out", HOT)
    template, model.template = model.template, None
    try:
        with pytest.raises(InputError, match="use --plain"):
            infer(model, [one], tmp_path / "out2", HOT)
    finally:
        model.template = template


def test_the_command_goes_on_after_a_kill(writer: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [{"prompt": f"The quick {i}"} for i in range(60)] + [{"none": 1}])
    told = [
        "infer",
        str(writer),
        str(file),
        "--max-tokens",
        "16",
        "--threads",
        "1",
        "--temperature",
        "2",
        "--stop",
        "zz",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "langgraft.cli", *told, "-o", str(tmp_path / "killed")]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    part = tmp_path / "killed" / "a.jsonl"
    while not (part.is_file() and part.stat().st_size > 500):
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(part.read_bytes().splitlines())
    again = langgraft(*told, "-o", tmp_path / "killed", "--json")
    assert again.code == 1, again.err  # a row failed
    summary = json.loads(again.out)
    assert (summary["rows"], summary["failed"]) == (61, 1)
    assert done < 61
    assert "1 rows failed: the row has none of" in again.err
    langgraft(*told, "-o", tmp_path / "whole")
    assert part.read_bytes() == (tmp_path / "whole" / "a.jsonl").read_bytes()
