"""lm-evaluation-harness: the same bits per byte as ours, local tasks offline, names that the installed harness has."""

import json
from pathlib import Path
from typing import Any

import pytest
from command import langgraft
from pico import CANTONESE, ENGLISH

from langgraft.errors import InputError
from langgraft.evaluation.bpb import score
from langgraft.evaluation.task_names import TASKS, task_names

lm_eval = pytest.importorskip("lm_eval")

from langgraft.evaluation.tasks import _figures, merged, run_tasks  # noqa: E402 - where the harness is

THAI = ["วันนี้เราไปกินข้าวที่ไหนดี", "เขาบอกว่าพรุ่งนี้ฝนจะตก เลยไม่ไปเดินป่า", "นี่คือกับข้าวที่แม่ทำ อร่อยมาก"]
LANGUAGES = {"en": [*ENGLISH, " ".join(ENGLISH)], "yue": [*CANTONESE, "".join(CANTONESE)], "th": THAI}
ROLLING = """
task: bits_{code}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {code}.jsonl}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list: [{{metric: bits_per_byte}}]
"""


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def rows(path: Path, found: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in found) + "\n", encoding="utf-8")
    return path


def test_bits_per_byte_equal_those_of_the_harness(pico: Path, tmp_path: Path) -> None:
    for code, texts in LANGUAGES.items():
        rows(tmp_path / f"{code}.jsonl", [{"text": text} for text in texts])
        (tmp_path / f"bits_{code}.yaml").write_text(ROLLING.format(code=code), encoding="utf-8")
    names = [f"bits_{code}" for code in LANGUAGES]
    found = run_tasks(pico, names, task_folder=tmp_path, window=48, device="cpu", threads=1, batch_size=2)
    for code, texts in LANGUAGES.items():
        # The harness reads a text in windows that do not overlap.
        ours = score(pico, texts, length=48, stride=48, device="cpu", threads=1)
        assert ours.tokens.max() > 96
        assert found[f"bits_{code}"]["metrics"]["bits_per_byte"]["value"] == pytest.approx(ours.bits_per_byte, abs=1e-5)
        assert found[f"bits_{code}"]["samples"] == len(texts)
        assert found[f"bits_{code}"]["better"]["bits_per_byte"] == "lower"


def own_tasks(folder: Path) -> Path:
    """Data for the task files that come with langgraft, in the shapes of the public sets."""
    for split, count in (("dev", 5), ("test", 12)):
        (folder / "yue_mmlu" / split).mkdir(parents=True)
        lines = [f"邊個係第{i}個？,一,二,三,四,{'ABCD'[i % 4]}" for i in range(count)]
        (folder / "yue_mmlu" / split / "made_up.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "yue_arc").mkdir()
    lines = [f"q{i},{'ABCD1234'[i % 8]},{i} 加 1 係幾多？(A) 一 (B) 二 (C) 三 (D) 好多" for i in range(10)]
    table = ["questionID,AnswerKey,Cantonese_question", *lines]
    (folder / "yue_arc" / "dev.csv").write_text("\n".join(table) + "\n", encoding="utf-8")
    pairs = [{"premise": "باران می‌بارد", "hypothesis": f"هوا خیس است {i}", "label": "enc"[i % 3]} for i in range(9)]
    rows(folder / "farstail.jsonl", pairs)
    rows(
        folder / "parsinlu_entailment.jsonl",
        [{"sent1": p["premise"], "sent2": p["hypothesis"], "label": p["label"]} for p in pairs],
    )
    return folder


def test_our_task_files_run_offline_by_the_command(pico: Path, pico_untied: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(CANTONESE), encoding="utf-8")
    done = langgraft(
        "evaluate", "--models", pico, pico_untied, "--target", text, "--language", "yue", "--threads", 1, "--json",
        "--tasks", "yue_mmlu,yue_arc,farstail,parsinlu_entailment", "--task-folder", own_tasks(tmp_path / "tasks"),
        "--task-limit", 6, "-o", tmp_path / "out",
    )  # fmt: skip
    assert done.code == 0, done.err
    found = json.loads(done.out)["tasks"]
    assert [one["task"] for one in found] == ["yue_mmlu", "yue_arc", "farstail", "parsinlu_entailment"]
    assert [one["metric"] for one in found] == ["acc"] * 4
    assert [one["samples"] for one in found] == [6] * 4
    for one in found:
        assert set(one["models"]) == {"base", "adapted"}
        assert 0 <= one["models"]["base"]["value"] <= 1
        assert one["models"]["base"]["stderr"] is not None
        assert one["changes"]["adapted"]["verdict"] in ("gain", "loss", "no measurable difference")
        assert one["paired"]
        values = [one["models"][name]["value"] for name in ("base", "adapted")]
        assert one["changes"]["adapted"]["mean"] == pytest.approx(values[1] - values[0])
    assert "farstail" in done.err


def test_tasks_that_are_not_there_are_said(pico: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="is no folder"):
        run_tasks(pico, ["farstail"], task_folder=tmp_path / "none")
    with pytest.raises(InputError, match="a task of farstail cannot be run"):
        run_tasks(pico, ["farstail"], task_folder=tmp_path, device="cpu", threads=1)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(Exception, match=r"pip install 'langgraft\[lm-eval\]'"):
        run_tasks(pico, ["farstail"])


def test_names_are_those_of_the_installed_harness(pico: Path) -> None:
    from lm_eval.tasks import TaskManager

    known = set(TaskManager(verbosity="ERROR").all_tasks)
    assert {code: missing for code, names in TASKS.items() if (missing := set(names) - known)} == {}
    assert set(TASKS) >= {"hi", "th", "ja", "fa", "yue", "zh", "en"}
    assert len(TASKS) >= 27
    with pytest.raises(InputError, match="knows no task `xnli_hindi`"):
        run_tasks(pico, ["xnli_hindi"])


def test_auto_takes_the_languages_tasks() -> None:
    assert task_names("auto", "hin")[:2] == ["belebele_hin_Deva", "xnli_hi"]
    assert task_names("a, b", "hin") == ["a", "b"]
    with pytest.raises(InputError, match="has no tasks for Santali that langgraft knows of; name some with --tasks"):
        task_names("auto", "sat")


def test_changes_between_models_have_a_verdict() -> None:
    def result(value: float, error: float | None) -> dict[str, Any]:
        facts = {"version": 1, "samples": 100, "shots": 0, "better": {"acc": "higher"}}
        return {"t": {**facts, "metrics": {"acc": {"value": value, "stderr": error}}}}

    (row,) = merged(
        {"base": result(0.3, 0.02), "a": result(0.5, 0.02), "b": result(0.31, 0.02), "c": result(0.9, None)}
    )
    assert row["changes"]["a"]["verdict"] == "gain"
    assert row["changes"]["b"]["verdict"] == "no measurable difference"
    assert "c" not in row["changes"]


def sampled(values: list[float], start: int = 0) -> dict[str, Any]:
    """A task's result as `run_tasks` gives it, with what every sample got."""
    mean = sum(values) / len(values)
    metric = {"value": mean, "stderr": (mean * (1 - mean) / len(values)) ** 0.5}
    metric["values"] = {f"t {i}": value for i, value in enumerate(values, start=start)}  # type: ignore[assignment]
    return {
        "t": {"version": 1, "samples": len(values), "shots": 0, "better": {"acc": "higher"}, "metrics": {"acc": metric}}
    }


def test_changes_are_paired_by_sample() -> None:
    """Ten of a hundred samples more, none less: clear where both were asked the same, noise where they were not."""
    before, after = sampled([1.0] * 40 + [0.0] * 60), sampled([1.0] * 50 + [0.0] * 50)
    (row,) = merged({"base": before, "adapted": after})
    assert row["paired"]
    assert row["changes"]["adapted"]["verdict"] == "gain"
    assert row["models"]["base"] == {"value": 0.4, "stderr": pytest.approx(0.049, abs=1e-3)}
    (apart,) = merged({"base": before, "adapted": sampled([1.0] * 50 + [0.0] * 50, start=7)})
    assert not apart["paired"]
    assert apart["changes"]["adapted"]["verdict"] == "no measurable difference"


def test_a_figure_that_is_no_mean_of_samples_is_not_drawn_anew() -> None:
    rows = [{"doc_id": i, "doc_hash": "h" * 64, "metrics": ["acc"], "acc": float(i % 2)} for i in range(4)]
    found = {"results": {"g": {"acc,none": 0.5, "acc_stderr,none": 0.1}}, "samples": {"a": rows[:3], "b": rows[3:]}}
    found["group_subtasks"] = {"g": ["a", "b"], "a": [], "b": []}  # type: ignore[dict-item]
    assert set(_figures("g", found)["metrics"]["acc"]["values"].values()) == {0.0, 1.0}
    found["results"]["g"]["acc,none"] = 0.6667  # a group that weighs its tasks alike
    assert "values" not in _figures("g", found)["metrics"]["acc"]
