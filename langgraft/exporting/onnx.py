"""A hub folder as one ONNX graph with its cache, traced by transformers' own exporter and proven in ONNX Runtime.

Inputs and outputs go by the names that Optimum, transformers.js and others know: `input_ids`, `attention_mask`,
`position_ids`, `past_key_values.N.key`, `logits`, `present.N.key`. A text begins with an empty past.
"""

import contextlib
import importlib.util
import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langgraft.base import check_causal_lm, check_tokenizer_fits
from langgraft.errors import LanggraftError, ModelError
from langgraft.exporting.folder_gates import folder_gates
from langgraft.exporting.formats import clean_config, passed, tokenizer_config
from langgraft.exporting.manifest import write_manifest
from langgraft.exporting.parity_lines import parity_lines
from langgraft.store import staged_folder, write_json
from langgraft.training.adapter import copy_side_files
from langgraft.training.device import load_model

if TYPE_CHECKING:
    from torch import Tensor

FILE = "model.onnx"
BOUND = 1e-3  # of a logit; graphs in float32 differ by rounding alone
LINES, TOKENS = 24, 48  # texts that are compared, and how many tokens of each at most
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_CACHE = re.compile(r"(?:input\.|output\.)?past_key_values\.layers\.(\d+)\.(key|value)s")


def export_onnx(model: Path, out: Path) -> dict[str, Any]:
    """Write `out/model.onnx` and `out/model.onnx.data` in float32, with config, tokenizer and chat template.

    Returns:
        `format, folder, files` (name -> `{bytes, sha256}`)`, gates`.

    Raises:
        LanggraftError: the packages of `langgraft[onnx]` are not installed.
        ModelError: the model cannot be traced, keeps its state in another way, a check of `folder_gates` fails, or
            ONNX Runtime computes something else.
        DiskFullError: no space is left; `out` is untouched.
    """
    model, out = Path(model), Path(out)
    if missing := [name for name in _PACKAGES if importlib.util.find_spec(name) is None]:
        raise LanggraftError(f"ONNX needs {', '.join(missing)}; pip install 'langgraft[onnx]'")
    check_causal_lm(model)
    check_tokenizer_fits(model)
    gates = passed(folder_gates(model, model_file=False), model)
    import torch

    loaded = load_model(model, torch.device("cpu")).eval()
    program = _traced(model, loaded)
    import onnx_ir

    with staged_folder(out) as staging:
        onnx_ir.save(program, staging / FILE, external_data=f"{FILE}.data")
        copy_side_files(model, staging)
        write_json(staging / "tokenizer_config.json", tokenizer_config(model))
        write_json(staging / "config.json", clean_config(model))
        gates += passed(onnx_gates(staging, loaded), model)
        files = write_manifest(staging, "onnx", gates)
    return {"format": "onnx", "folder": str(out), "files": files, "gates": gates}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The tracer prints its progress and warns of itself; standard output is for `--json`."""
    level = logging.root.manager.disable
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(level)


def _traced(model: Path, loaded: Any) -> Any:
    """The graph (an `onnx_ir.Model`) of three tokens after five, for any batch, lengths and padding."""
    import torch

    ids = torch.arange(16).reshape(2, 8)
    mask = torch.ones(2, 8, dtype=torch.long)
    mask[0, :2] = 0  # a mask of ones would be left out
    places = (mask.cumsum(1) - 1).clamp(min=0)
    try:
        from transformers.exporters import OnnxConfig, OnnxExporter

        with torch.no_grad(), _quiet():
            first = loaded(
                input_ids=ids[:, :5], attention_mask=mask[:, :5], position_ids=places[:, :5], use_cache=True
            )  # fmt: skip
            sample = {"input_ids": ids[:, 5:], "attention_mask": mask, "position_ids": places[:, 5:]}
            past = {"past_key_values": first.past_key_values, "use_cache": True}
            found = OnnxExporter().export(loaded, {**sample, **past}, OnnxConfig(dynamic=True))
    except Exception as error:
        # What the tracer and the translation raise is of many classes, and changes with their versions.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{model} cannot be traced for ONNX: {reason}") from error
    _rename(found.program.graph, model)
    return found.program


def _rename(graph: Any, model: Path) -> None:
    """Give inputs, outputs and their dimensions the names that others know."""
    import onnx_ir

    sizes = {"input_ids": ["batch", "sequence"], "attention_mask": ["batch", "total"],
             "position_ids": ["batch", "sequence"]}  # fmt: skip
    caches = 0
    for values, prefix in ((graph.inputs, "past_key_values"), (graph.outputs, "present")):
        for value in values:
            if cache := _CACHE.fullmatch(value.name):
                value.name = f"{prefix}.{cache[1]}.{cache[2]}"
                caches += 1
            elif value.name not in (*sizes, "logits"):
                raise ModelError(f"{model} keeps its state as `{value.name}`, and not as keys and values of each layer")
            elif value.name in sizes:
                value.shape = onnx_ir.Shape(sizes[value.name])
    if not caches:
        raise ModelError(f"{model} was traced without a cache of keys and values")


def onnx_gates(folder: Path, loaded: Any) -> list[dict[str, Any]]:
    """Whether ONNX Runtime computes what `loaded`, the model in transformers, does.

    Texts in many scripts as a whole, one of them token by token with the cache, and two of unequal length in one batch.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = [tokenizer.encode(line, add_special_tokens=False).ids[:TOKENS] for line in parity_lines() if line.strip()]
    texts = [found for found in ids if len(found) > 1][:: max(len(ids) // LINES, 1)][:LINES]
    run = _Session(folder / FILE, loaded.config)
    whole = [_apart(run.whole([text]), _reference(loaded, [text])) for text in texts]
    longest = max(texts, key=len)
    steps = _apart(run.steps(longest), _reference(loaded, [longest]))
    pair = [longest, min(texts, key=len)]
    together = _apart(run.whole(pair), _reference(loaded, pair))
    return [
        _gate(f"ONNX Runtime gives the logits of transformers on {len(texts)} texts", whole),
        _gate("and token by token, with its cache", [steps]),
        _gate("and in a batch with padding", [together]),
    ]


def _gate(name: str, found: Sequence[tuple[float, int]]) -> dict[str, Any]:
    apart, flips = max(gap for gap, _ in found), sum(count for _, count in found)
    # NaN is no number below a bound, and fails.
    return {
        "name": name,
        "passed": apart <= BOUND,
        "value": f"{apart:.1e} apart at most, likeliest token differs {flips} times",
        "bound": f"{BOUND:g}",
        "detail": "",
    }


def _padded(texts: Sequence[Sequence[int]]) -> tuple["Tensor", "Tensor", "Tensor"]:
    """Ids, mask and positions of texts in one batch, padded in front; each (texts, longest)."""
    import torch

    longest = max(map(len, texts))
    ids = torch.tensor([[*[0] * (longest - len(text)), *text] for text in texts])
    mask = torch.tensor([[*[0] * (longest - len(text)), *[1] * len(text)] for text in texts])
    return ids, mask, (mask.cumsum(1) - 1).clamp(min=0)


def _reference(loaded: Any, texts: Sequence[Sequence[int]]) -> list["Tensor"]:
    """Logits of each text by itself: (tokens, rows)."""
    import torch

    with torch.no_grad():
        return [loaded(input_ids=torch.tensor([text])).logits[0] for text in texts]


def _apart(found: Sequence["Tensor"], wanted: Sequence["Tensor"]) -> tuple[float, int]:
    """The largest difference of a logit, and how often the likeliest token is another one."""
    pairs = list(zip(found, wanted, strict=True))
    gaps = [(one - other).abs().nan_to_num(nan=float("inf")).max().item() for one, other in pairs]
    flips = [(one.argmax(-1) != other.argmax(-1)).sum().item() for one, other in pairs]
    return max(gaps), int(sum(flips))


class _Session:
    """A graph in ONNX Runtime on the CPU."""

    def __init__(self, path: Path, config: Any) -> None:
        import numpy as np
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.inputs = [value.name for value in self.session.get_inputs()]
        self.outputs = [value.name for value in self.session.get_outputs()]
        text = config.get_text_config()
        heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        self.empty = np.zeros((1, heads, 0, width), np.float32)

    def __call__(
        self, ids: "Tensor", mask: "Tensor", places: "Tensor", past: Mapping[str, Any]
    ) -> tuple["Tensor", dict[str, Any]]:
        """Logits, and what is past then."""
        import torch

        given = {"input_ids": ids.numpy(), "attention_mask": mask.numpy(), "position_ids": places.numpy(), **past}
        found = dict(
            zip(self.outputs, self.session.run(None, {name: given[name] for name in self.inputs}), strict=True)
        )
        kept = {name.replace("present", "past_key_values"): value for name, value in found.items() if name != "logits"}
        return torch.from_numpy(found["logits"]), kept

    def past(self, texts: int) -> dict[str, Any]:
        """Nothing past, for so many texts."""
        names = [name for name in self.inputs if name.startswith("past_key_values")]
        return dict.fromkeys(names, self.empty.repeat(texts, axis=0))

    def whole(self, texts: Sequence[Sequence[int]]) -> list["Tensor"]:
        """Logits of texts in one batch, each (tokens, rows)."""
        logits, _ = self(*_padded(texts), self.past(len(texts)))
        return [rows[-len(text) :] for rows, text in zip(logits, texts, strict=True)]

    def steps(self, text: Sequence[int]) -> list["Tensor"]:
        """Logits of one text, read token by token after its first half."""
        import torch

        ids, mask, places = _padded([text])
        half = len(text) // 2
        logits, past = self(ids[:, :half], mask[:, :half], places[:, :half], self.past(1))
        found = [logits[0]]
        for at in range(half, len(text)):
            logits, past = self(ids[:, at : at + 1], mask[:, : at + 1], places[:, at : at + 1], past)
            found.append(logits[0])
        return [torch.cat(found)]
