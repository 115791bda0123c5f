"""`[sft]` of a recipe: instruction tuning on conversations."""

from typing import Literal

from pydantic import Field

from langgraft.recipe_section import Lora, Section


class ChatData(Section):
    """Conversations to learn from: one `[[sft.data]]` table."""

    path: str
    """File, folder, glob, `package:NAME/path` or `hub:owner/dataset` of rows: JSONL, JSON or Parquet. A row has
    `messages` (role, content), `conversations` (from, value; ShareGPT), or `instruction`, `input` and `output`."""
    share: float = Field(default=1.0, gt=0, le=1)
    """Share of its rows to take."""
    license: str = ""
    """Licence of this data; carried into the report."""


class Sft(Section):
    """Instruction tuning: answers of conversations, learned in the chat template that serving asks with."""

    data: list[ChatData] = Field(min_length=1)
    """Conversations to learn from."""
    system: str = ""
    """System prompt for conversations that bring none; empty adds none."""
    template: str | None = None
    """File with a chat template (Jinja) instead of the model's own. A model without one gets ChatML where it has its
    tokens, else turns marked by ordinary text."""
    epochs: int = Field(default=2, ge=1)
    """How often each conversation is read."""
    sequence_length: int = Field(default=1024, ge=16)
    """Tokens of one row. Conversations are not cut: longer ones lose their last turns."""
    batch_tokens: int = Field(default=16384, ge=16)
    """Places of one optimizer step."""
    mode: Literal["full", "lora"] = "full"
    """What learns: everything, or LoRA (and rows of new tokens, see `sft.lora.rows`)."""
    lora: Lora = Field(default_factory=Lora)
    """Options of mode `lora`."""
    learning_rate: float = Field(default=2e-5, gt=0)
    """Peak rate; ten times as much is usual for `lora`."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decay of matrices; embeddings, norms and biases have none."""
    optimizer: Literal["adamw", "muon", "adamw_8bit"] = "adamw"
    """What moves the weights, as in `pretrain.optimizer`."""
    gradient_clip: float = Field(default=1.0, gt=0)
    """Largest gradient norm."""
    schedule: Literal["wsd", "cosine"] = "cosine"
    """Learning-rate schedule: warm-up, stable, decay; or cosine."""
    warmup: float = Field(default=0.03, ge=0, lt=1)
    """Share of steps for warm-up."""
    dev: float = Field(default=0.02, ge=0)
    """Conversations to hold out and measure on: a share below 1, or a number; 0 measures nothing."""
    documents: int = Field(default=200, ge=1)
    """At most this many of them for bits per byte of their answers."""
    generated: int = Field(default=8, ge=0)
    """This many of their questions are answered before and after, to see whether answers end, and in which language."""
    max_new_tokens: int = Field(default=128, ge=1)
    """Length of these answers."""
    seed: int = 0
    """Seed of what is held out, and of data order."""
