"""lm-evaluation-harness on a hub folder, offline where task files and data are local (extra `langgraft[lm-eval]`)."""

import contextlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from langgraft.base import separator_id
from langgraft.errors import InputError, LanggraftError
from langgraft.evaluation.stats import Interval, bootstrap_difference, verdict
from langgraft.progress import Log

OWN = Path(__file__).with_name("tasks")
"""Task files that come with langgraft; their data is looked for in the user's task folder."""
PREFERRED = ("acc_norm", "acc", "exact_match", "f1", "bits_per_byte")
Z = 1.96  # standard errors of a 95% interval
ROUNDING = 1e-6  # by which a mean may differ that was summed in another order


def run_tasks(
    folder: Path,
    names: Sequence[str],
    *,
    task_folder: Path | None = None,
    shots: int | None = None,
    limit: int | None = None,
    window: int = 2048,
    batch_size: int = 8,
    device: str = "auto",
    threads: int = 0,
    log: Log | None = None,
) -> dict[str, Any]:
    """What a hub folder reaches in tasks of lm-evaluation-harness, as it tells it itself.

    Args:
        names: tasks of the harness, of langgraft (`yue_mmlu`, `yue_arc`, `farstail`, `parsinlu_entailment`), or of
            `task_folder`.
        task_folder: YAML files of tasks, and data that theirs and langgraft's name by relative paths.
        shots: examples in each context; None: as the task has it.
        limit: only so many samples of each task.
        window: longest context in tokens.

    Returns:
        By task: `{"version", "samples", "shots", "metrics": {name: {"value", "stderr", "values"}}, "better": {name:
        ...}}`; `values` are those of single samples, where the metric is their mean.

    Raises:
        LanggraftError: the harness is not installed.
        InputError: there is no such task, or its data cannot be read.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise LanggraftError("tasks need lm-evaluation-harness; pip install 'langgraft[lm-eval]'")
    if task_folder is not None and not task_folder.is_dir():
        raise InputError(f"--task-folder {task_folder} is no folder")
    import lm_eval
    from lm_eval.tasks import TaskManager

    with contextlib.chdir(task_folder or Path.cwd()):
        include = [str(path) for path in (OWN, task_folder and Path.cwd()) if path]
        local = TaskManager(include_path=include, include_defaults=False, verbosity="ERROR")
        known = set(local.all_tasks)
        if not set(names) <= known:  # the harness's own take seconds to list
            local = TaskManager(include_path=include, verbosity="ERROR")
            known = set(local.all_tasks)
        unknown = sorted(set(names) - known)
        if unknown:
            raise InputError(f"lm-evaluation-harness knows no task `{unknown[0]}`, and neither does the task folder")
        if log:
            log.say(f"tasks: {', '.join(names)}")
        try:
            found = lm_eval.simple_evaluate(
                model=_harness_model(folder, window, batch_size, device, threads),
                tasks=list(names),
                num_fewshot=shots,
                limit=limit,
                task_manager=local,
                log_samples=True,
                bootstrap_iters=1000,
            )
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"a task of {', '.join(names)} cannot be run: {error}") from error
    return {name: _figures(name, found) for name in names}


def _harness_model(folder: Path, window: int, batch_size: int, device: str, threads: int) -> Any:
    """The folder as the harness sees a model; the same separator stands first as in bits per byte."""
    from lm_eval.models.huggingface import HFLM
    from transformers import PreTrainedTokenizerFast

    from langgraft.training.device import choose_device, load_model, set_threads

    set_threads(threads)
    where = choose_device(device)
    config_file = folder / "tokenizer_config.json"
    config = json.loads(config_file.read_text(encoding="utf-8")) if config_file.is_file() else {}
    named = {key: config[key] for key in ("bos_token", "eos_token", "unk_token", "pad_token") if config.get(key)}
    texts = {key: value["content"] if isinstance(value, dict) else value for key, value in named.items()}
    # AutoTokenizer may rebuild a tokenizer from class code and change its ids; the file is the truth.
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **texts)
    return HFLM(
        pretrained=load_model(folder, where),
        tokenizer=tokenizer,
        max_length=window,
        batch_size=batch_size,
        device=str(where),
        prefix_token_id=separator_id(folder),
    )


def _figures(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """One task's (or group's) figures out of the harness's results."""
    results = found["results"].get(name) or found.get("groups", {}).get(name)
    if results is None:
        raise InputError(f"lm-evaluation-harness gave no result for `{name}`")
    metrics: dict[str, dict[str, Any]] = {}
    of_samples = _values(name, found)
    for key, value in results.items():
        metric, _, kind = key.partition(",")
        if metric.endswith("_stderr") or not isinstance(value, int | float) or metric in ("alias", "sample_len"):
            continue
        error = results.get(f"{metric}_stderr,{kind}")
        metrics[metric] = {"value": float(value), "stderr": float(error) if isinstance(error, int | float) else None}
        values = of_samples.get(metric, {})
        # Figures made otherwise (F1, a group that weighs its tasks alike) cannot be drawn anew from samples.
        if values and abs(sum(values.values()) / len(values) - value) < ROUNDING:
            metrics[metric]["values"] = values
    higher = found.get("higher_is_better", {}).get(name, {})
    samples = found.get("n-samples", {}).get(name, {})
    return {
        "version": found.get("versions", {}).get(name),
        "samples": samples.get("effective"),
        "shots": found.get("n-shot", {}).get(name),
        "metrics": metrics,
        "better": {metric: "lower" if higher.get(metric) is False else "higher" for metric in metrics},
    }


def _values(name: str, found: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """By metric, what every sample of a task (or of a group's tasks) got, under a name that tells samples apart."""
    children: Mapping[str, Sequence[str]] = found.get("group_subtasks", {})
    tasks, todo = [], [name]
    while todo:
        one = todo.pop()
        todo += children.get(one) or []
        tasks += [] if children.get(one) else [one]
    values: dict[str, dict[str, float]] = {}
    for task in sorted(tasks):
        for sample in found.get("samples", {}).get(task, ()):
            key = f"{task} {sample['doc_id']} {sample['doc_hash'][:12]}"
            for metric in sample["metrics"]:
                if isinstance(sample[metric], Real):
                    values.setdefault(metric, {})[key] = float(sample[metric])
    return values


def merged(by_model: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every task's main metric for every model, and how the later models differ from the first.

    Changes are judged by a bootstrap over samples, the same ones for both models (`paired`), where the metric is a
    mean of samples' values. Otherwise the harness's standard errors are all there is, and changes are judged as if the
    models had been asked different samples: their intervals are too wide rather than too narrow.
    """
    names = list(by_model)
    found = []
    for task, first in by_model[names[0]].items():
        metric = next((one for one in PREFERRED if one in first["metrics"]), next(iter(first["metrics"]), None))
        if metric is None:
            continue
        asked = {name: by_model[name][task]["metrics"][metric] for name in names}
        models = {name: {key: one[key] for key in ("value", "stderr")} for name, one in asked.items()}
        better = first["better"][metric]
        changes = {name: _change(asked[names[0]], asked[name], better) for name in names[1:]}
        facts = {key: first[key] for key in ("version", "samples", "shots")}
        found.append(
            {
                "task": task, "metric": metric, "better": better, **facts, "models": models,
                "changes": {name: change for name, change in changes.items() if change is not None},
                "paired": all(_paired(asked[names[0]], asked[name]) for name in names[1:]),
            }
        )  # fmt: skip
    return found


def _paired(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether both models' values of the same samples are known."""
    values = [one.get("values") or {} for one in (before, after)]
    return bool(values[0]) and values[0].keys() == values[1].keys()


def _change(before: Mapping[str, Any], after: Mapping[str, Any], better: Any) -> dict[str, Any] | None:
    if _paired(before, after):
        keys = sorted(before["values"])
        first, second = ([one["values"][key] for key in keys] for one in (before, after))
        found = bootstrap_difference(first, second)
        return {**found.as_dict(), "verdict": verdict(found, better)}
    if before["stderr"] is None or after["stderr"] is None:
        return None
    mean, wide = after["value"] - before["value"], Z * float((before["stderr"] ** 2 + after["stderr"] ** 2) ** 0.5)
    change = Interval(mean, mean - wide, mean + wide)
    return {**change.as_dict(), "verdict": verdict(change, better)}
