"""What every section of a recipe shares, and the tables that several have."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """Common rules of all sections."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class InputText(Section):
    """Text to read: one `[[corpus.target]]`, `[[corpus.source]]` or `[[align.parallel]]` table."""

    path: str
    """File, folder, glob, `package:NAME/path` or `hub:owner/dataset`; compressed files are read as they are."""
    reader: str = "auto"
    """How to read it: auto (by name and content), jsonl, json, i18n, delimited (CSV, TSV), parquet, text (a document a
    line), paragraphs, document, markdown, html, epub, mediawiki, wikimedia_html, subtitles, chat, conllu, aozora, po,
    mo, tmx, dictd, edict, or `my_module:function`."""
    text_key: str = "text"
    """The field or column that holds the text, for readers with fields."""
    encoding: str = "auto"
    """Encoding of the text: auto detects and reports it; or a name such as `cp1256`, `shift_jis`, `utf-16`."""
    strict: bool = False
    """Stop at damaged files and lines. Otherwise they are counted, what is good is kept, and the run goes on."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the reader, by name, such as `{ code = "keep" }` for markdown or `{ pair_key = "en" }` for CSV."""
    license: str = ""
    """Licence of this text; carried into every document and into the report."""
    name: str = ""
    """Short name of this source; the path when empty."""


class Lora(Section):
    """Low-rank adapters, for mode `lora`."""

    rank: int = Field(default=16, ge=1)
    """Rank of the two small matrices beside each target."""
    alpha: int = Field(default=32, ge=1)
    """Their product counts `alpha / rank`."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the inputs of LoRA that is dropped in training."""
    targets: list[str] = Field(default_factory=lambda: ["all-linear"], min_length=1)
    """Last names of linear layers, such as `q_proj`; `all-linear` takes all of the transformer's."""
    rows: Literal["new", "all", "none"] = "new"
    """Rows of embedding and head that learn beside LoRA. With `all` there is no small adapter, only the merged
    model."""
    quantize: Literal["none", "nf4"] = "none"
    """`nf4` holds the frozen base in 4 bits (QLoRA); needs CUDA and bitsandbytes."""
