"""`[align]` of a recipe: further training on parallel text."""

from typing import Any, Literal

from pydantic import Field

from langgraft.recipe_section import InputText, Lora, Section


class Align(Section):
    """Train the pretrained model further on parallel text, in several formats."""

    parallel: list[InputText] = Field(min_length=1)
    """Text in both languages: rows with a field for each language's code (or `target` and `source`, or those named by
    `text_key` and `options = { pair_key = ... }`), PO, MO, TMX, EDICT."""
    formats: dict[str, float] = Field(default_factory=lambda: {"translation": 2.0, "interleaved": 1.0,
                                                               "code_switched": 1.0})  # fmt: skip
    """Share of every format of the parallel text, in tokens, on any scale: translation (both ways), interleaved
    (both languages in turn), bilingual (`HI (EN) HI (EN)`), code_switched (each sentence in one of the two), or
    `my_module:function`."""
    options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Options of the formats, by format: `{ translation = { directions = "to_target", templates = [...] } }`."""
    max_epochs: float | None = Field(default=None, gt=0)
    """Most often that the text of a format, or the monolingual text, is repeated, such as 4; what it cannot give comes
    from the others."""
    monolingual_ratio: float = Field(default=0.25, ge=0, lt=1)
    """Share of training tokens that is text of the new language alone: the train split of `corpus.target`."""
    replay_ratio: float = Field(default=0.25, ge=0, lt=1)
    """Share of training tokens that is source-language replay: the text that pretraining replayed, with its loss."""
    tokens: int = Field(default=2_000_000, ge=1)
    """Training budget in tokens, monolingual text and replay included; rounded up to whole steps."""
    sequence_length: int = Field(default=512, ge=16)
    """Tokens of one packed row."""
    batch_tokens: int = Field(default=8192, ge=16)
    """Tokens of one optimizer step, monolingual text and replay included."""
    mode: Literal["full", "lora", "embeddings"] = "full"
    """What learns: `full` everything; `lora` adapters, merged at the end, and new rows; `embeddings` embedding and
    head."""
    lora: Lora = Field(default_factory=Lora)
    """Options of mode `lora`."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """Peak rate of the transformer's weights."""
    new_rows_learning_rate: float = Field(default=3e-4, gt=0)
    """Peak rate of embedding and head rows of new tokens."""
    old_rows_learning_rate: float = Field(default=1e-4, ge=0)
    """Peak rate of embedding and head rows the base had; 0 keeps them bit-identical."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Decay of matrices; embeddings, norms and biases have none."""
    optimizer: Literal["adamw", "muon", "adamw_8bit"] = "adamw"
    """What moves the weights, as `pretrain.optimizer`."""
    gradient_clip: float = Field(default=1.0, gt=0)
    """Largest gradient norm."""
    schedule: Literal["wsd", "cosine"] = "wsd"
    """Learning-rate schedule: warm-up, stable, decay; or cosine."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of steps for warm-up."""
    decay: float = Field(default=0.4, ge=0, le=1)
    """Share of steps for the decay of `wsd`."""
    dev: int = Field(default=100, ge=0)
    """Pairs that are not trained on: on them translation is measured before and after, in bits per byte, both ways; at
    most a tenth of all pairs. 0 measures nothing."""
    seed: int = 0
    """Seed of the formats' texts, of which pairs are held out, and of data order."""
