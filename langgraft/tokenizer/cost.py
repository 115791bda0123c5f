"""What a tokenizer's savings are worth: training, serving, context, and the rows that new tokens add."""

import json
import struct
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from langgraft.base import embedding_rows
from langgraft.errors import ModelError
from langgraft.store import read_json

WIDTHS = ("hidden_size", "n_embd", "d_model")
CONTEXTS = ("max_position_embeddings", "n_positions", "n_ctx")


@dataclass(frozen=True)
class ModelSize:
    """What cost depends on; None where the folder does not say.

    `rows` and `width` are those of the embedding, `matrices` is 2 where the head has a matrix of its own,
    `context` is in tokens.
    """

    parameters: int | None = None
    rows: int | None = None
    width: int | None = None
    matrices: int = 1
    context: int | None = None

    @property
    def embedding(self) -> int | None:
        """Parameters of embedding and head."""
        return self.rows * self.width * self.matrices if self.rows and self.width else None


@dataclass(frozen=True)
class Cost:
    """Cost of the same text with `rows_added` new tokens; None where the model's size is not known.

    Compute is estimated as 6 operations per parameter and token in training and 2 in use (forward pass).
    `budget_tokens` are tokens of the base; `_extended` is always the figure with the new tokens. A pair's
    first figure is the base's.
    """

    rows_added: int
    budget_tokens: int
    budget_tokens_extended: int
    parameters: int | None
    parameters_added: int | None
    embedding_share: float | None
    embedding_share_extended: float | None
    training_flops: float | None
    training_flops_extended: float | None
    serving_flops: float | None
    serving_flops_extended: float | None
    context_characters: int | None
    context_characters_extended: int | None

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def model_size(folder: Path, parameters: int | None = None) -> ModelSize:
    """Read a model folder's sizes from `config.json` and the headers of its weights; a given count wins.

    Raises:
        ModelError: a weights file is damaged, or the config has no `vocab_size`.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        return ModelSize(parameters)
    config = read_json(path)
    text = {**config, **config.get("text_config", {})}
    rows = embedding_rows(folder)
    width = next((text[key] for key in WIDTHS if isinstance(text.get(key), int)), None)
    context = next((text[key] for key in CONTEXTS if isinstance(text.get(key), int)), None)
    shapes = _shapes(folder)
    tall = [shape for shape in shapes if len(shape) == 2 and shape[0] == rows]
    tied = text.get("tie_word_embeddings")
    matrices = 1 if tied or (tied is None and len(tall) < 2) else 2
    if tall:
        width = tall[0][1]
    if parameters is None and shapes:
        parameters = sum(map(_product, shapes))
        if matrices < len(tall):  # a tied head that was stored all the same
            parameters -= sum(map(_product, tall[matrices:]))
    return ModelSize(parameters, rows, width, matrices, context)


def _product(shape: list[int]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


def _shapes(folder: Path) -> list[list[int]]:
    """The shape of every tensor; only headers are read."""
    shapes = []
    for path in sorted(Path(folder).glob("*.safetensors")):
        with path.open("rb") as file:
            try:
                (length,) = struct.unpack("<Q", file.read(8))
                header = json.loads(file.read(min(length, path.stat().st_size)))
                shapes += [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
            except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
                raise ModelError(f"{path} is damaged: its header cannot be read; copy the file again") from error
    return shapes


def cost(model: ModelSize, new_tokens: int, saved: float, budget_tokens: int, tokens_per_character: float) -> Cost:
    """Estimate what `new_tokens` change when they save a share `saved` of the tokens.

    Args:
        model: sizes of the base.
        new_tokens: rows added to the embedding and, where it has its own matrix, to the head.
        saved: share of the tokens saved, 0 to 1.
        budget_tokens: tokens of the new language to train on, counted with the base.
        tokens_per_character: of the base, on the new language.
    """
    kept = 1 - saved
    size, width = model.parameters, model.width
    added = new_tokens * width * model.matrices if width else None
    # A token's input row is looked up, not multiplied: only the head's new rows cost compute.
    larger = size + new_tokens * width if size and width else None
    per_thousand = 1000 * tokens_per_character
    share = model.embedding / size if model.embedding and size else None
    share_extended = (model.embedding + added) / (size + added) if model.embedding and size and added else None
    characters = model.context / tokens_per_character if model.context and tokens_per_character else None
    return Cost(
        rows_added=new_tokens,
        budget_tokens=budget_tokens,
        budget_tokens_extended=round(budget_tokens * kept),
        parameters=size,
        parameters_added=added,
        embedding_share=share,
        embedding_share_extended=share_extended,
        training_flops=6.0 * size * budget_tokens if size else None,
        training_flops_extended=6.0 * larger * budget_tokens * kept if larger else None,
        serving_flops=2.0 * size * per_thousand if size else None,
        serving_flops_extended=2.0 * larger * per_thousand * kept if larger else None,
        context_characters=round(characters) if characters else None,
        context_characters_extended=round(characters / kept) if characters and kept else None,
    )
