"""The recipe: what to do, in one strict TOML file. Every field's docstring is its help and its documentation.

Sections are stages, in order; `[compute]` is how and where, and never changes what is made. Unknown fields and
wrong types are errors that name the field and suggest the right one.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from langgraft.recipe_align import Align
from langgraft.recipe_compute import ComputeSection
from langgraft.recipe_evaluation import ChatSection, SummariesSection, TranslationSection
from langgraft.recipe_section import InputText, Lora, Section
from langgraft.recipe_sft import Sft


class Model(Section):
    """The base model and the two languages."""

    base: str
    """Base model: a hub id `owner/model`, a folder, a `.gguf` file, or `package:NAME` with a GGUF inside."""
    revision: str | None = None
    """Branch, tag or commit of a hub base."""
    language: str
    """Code of the language to teach, such as `yue`, `hi`, `th`."""
    source_language: str = "en"
    """Code of the language the base must not forget."""


class Filters(Section):
    """Quality filters for text in the language to teach."""

    quality: bool = False
    """Drop documents outside of the filters' bounds; switched on by `reference`, `fineweb` and `bounds` too."""
    reference: list[InputText] = Field(default_factory=list)
    """Clean text in the language, 100 documents or more, from which bounds and stop words are derived."""
    tail: float = Field(default=0.01, ge=0, lt=0.5)
    """Share of the reference outside each single bound."""
    fineweb: str | None = None
    """A FineWeb-2 configuration (`hin_Deva.yml`) with the bounds, instead of a reference."""
    bounds: dict[str, Any] = Field(default_factory=dict)
    """Your own bounds, by filter: `{ digits = ["", 0.2], mean_word_length = [2, 12], newlines = false }`."""
    boilerplate: int = Field(default=0, ge=0)
    """Remove lines that at least so many documents of one source share, such as 20, in both languages; 0 keeps them."""


class Corpus(Section):
    """Read, clean, deduplicate and split text of both languages."""

    target: list[InputText] = Field(min_length=1)
    """Text in the language to teach."""
    source: list[InputText] = Field(default_factory=list)
    """Text in the source language: held out to measure forgetting, and replay when `pretrain.replay = "corpus"`."""
    min_characters: int = Field(default=1, ge=1)
    """Drop documents shorter than this after cleaning."""
    max_characters: int | None = Field(default=None, ge=16)
    """Cut documents longer than this at a sentence or paragraph end."""
    near_duplicates: bool = True
    """Remove near duplicates (MinHash), not only exact ones."""
    decontaminate: list[str] = Field(default_factory=list)
    """Evaluation sets that the text must not hold: files, folders, `hub:owner/dataset:split`. Documents that share 13
    words in a row with one (50 characters in scripts without spaces, 20 of Han and kana), or nearly repeat it, go."""
    mixed: Literal["lines", "document", "keep"] = "lines"
    """Documents in more than one language: `lines` keeps the lines that are in the language, `document` keeps or drops
    the whole by what most of it is, `keep` drops nothing for its language and only counts languages."""
    langid_model: str | None = None
    """fastText file that tells languages apart, such as GlotLID's `model.bin`; lid.176 by default."""
    extra_rules: list[str] = Field(default_factory=list)
    """Normalisation that changes how text looks: `ascii_digits` (digits of every script become 0 to 9),
    `hong_kong_forms` (Cantonese: 裡 becomes 裏, 衛 becomes 衞, ...)."""
    filters: Filters = Field(default_factory=Filters)
    """Quality filters."""
    mask: list[Literal["email", "ip", "card", "iban", "id", "phone", "all"]] = Field(default_factory=list)
    """Personal data to mask in both languages: email, ip, card, iban, id (Aadhaar, Thai, Hong Kong), phone, or all."""
    dev: float = Field(default=0.02, ge=0)
    """Documents for development: a share below 1, or a number."""
    test: float = Field(default=0.02, ge=0)
    """Documents for the final test: a share below 1, or a number."""
    source_dev: float | None = Field(default=None, ge=0)
    """`dev` for the source language, when it should differ."""
    source_test: float | None = Field(default=None, ge=0)
    """`test` for the source language, when it should differ."""
    seed: int = 0
    """Decides which documents are held out, and their order."""


class Tokenizer(Section):
    """Extend the base's tokenizer."""

    method: Literal["continue", "merge", "train", "sentencepiece", "added", "none"] = "continue"
    """`continue` learns further merges on top of the base's; `merge` takes the tokens of `donor` that the language
    needs; `train` trains a new tokenizer on the text and merges it; `sentencepiece` trains pieces and appends them by
    score, for SentencePiece bases; `added` lists tokens as added tokens, for comparison only; `none` keeps the base's
    tokenizer."""
    donor: str | None = None
    """Donor tokenizer for `merge`, byte-level BPE: a folder, a hub id, a `.gguf` file, or `package:NAME`."""
    new_tokens: Annotated[int, Field(ge=1)] | Literal["auto"] = 2048
    """How many tokens to add (for `merge`, at most), or "auto": as many as `langgraft advise` recommends for the
    text, which may be none."""
    max_token_characters: int = Field(default=12, ge=2)
    """Longest new token, in characters."""
    min_frequency: int = Field(default=5, ge=2)
    """Fewest occurrences of a merge in the training text."""
    repair_marks: bool = True
    """For scripts with combining marks, mend pre-tokenizers that cut words at them."""
    max_changed_source: float = Field(default=0.01, ge=0, le=1)
    """For languages in the source language's own script: the largest share of source words that may be cut
    differently. Merges that cost the source language too much are left out (`continue`), and a gate measures the
    share. Other languages change none."""


class Probe(Section):
    """How `surgery.init = "auto"` chooses."""

    candidates: list[str] = Field(default_factory=lambda: ["subword_mean", "asymmetric", "frequency", "focus"])
    """Starts to compare."""
    steps: int = Field(default=50, ge=1)
    """Training steps for each; a few minutes of CPU time for a small model."""
    sequence_length: int = Field(default=128, ge=16)
    """Tokens of one training row."""
    batch_tokens: int = Field(default=256, ge=16)
    """Tokens of one step."""
    documents: int = Field(default=200, ge=2)
    """At most this many documents of the development split, per language, to measure on."""


class Surgery(Section):
    """Give the model rows for the new tokens."""

    init: str = "subword_mean"
    """How new rows start: subword_mean, asymmetric, mean, zeros, normal, multivariate, frequency, focus, dictionary,
    omp, or `my_module:function`; `distill` starts with subword_mean and learns them from the train split; `auto` trains
    each of `surgery.probe.candidates` briefly and takes the best."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the method, by name; for `auto`, a table of options for each candidate that has some."""
    probe: Probe = Field(default_factory=Probe)
    """How `auto` chooses."""
    pad_to_multiple_of: int = Field(default=64, ge=1)
    """Pad the number of rows to a multiple of this."""
    tensor_parallel: int = Field(default=1, ge=1)
    """Pad to this many times that multiple, so that every tensor-parallel rank of a later training gets one."""
    seed: int = 0
    """Seed of random starts."""


class CurriculumPoint(Section):
    """Shares at a position in the run, as `[[pretrain.mixture.curriculum]]` tables; in between they are linear."""

    at: float = Field(ge=0, le=1)
    """Position: 0 is the start of the run, 1 its end. Before the first table and after the last one shares stay."""
    shares: dict[str, float]
    """Share of every source there, as `pretrain.mixture.shares`."""


class Mixture(Section):
    """How much of the training comes from which source of `corpus.target`, in tokens. Left out: as much as there is."""

    shares: dict[str, float] = Field(default_factory=dict)
    """Share of every source, on any scale, by the `name` (or path) of its `[[corpus.target]]`, or the `source` that its
    rows name; 0 leaves it out. Empty: by the sources' sizes."""
    temperature: float = Field(default=1.0, gt=0)
    """For shares by size: 1 is natural, 2 and more bring them closer to equal."""
    max_epochs: float | None = Field(default=None, gt=0)
    """Most often that a source is repeated, such as 4; what it cannot give comes from the others. A curriculum that
    repeats one more often is refused."""
    curriculum: list[CurriculumPoint] = Field(default_factory=list)
    """Shares that change on the way, instead of `shares` and `temperature`."""
    order: Literal["shuffled", "length"] = "shuffled"
    """Order of the documents of each source: `shuffled`, or by `length`, short ones first, in every repetition."""


class Phase(Section):
    """Parts of the run, one after the other, as `[[pretrain.phases]]` tables; without any, the run is one phase."""

    mode: Literal["full", "lora", "embeddings", "new_rows"]
    """What learns, as in `pretrain.mode`."""
    share: float = Field(gt=0, le=1)
    """Share of the run's steps; those of all phases add up to 1."""
    layers: list[int] = Field(default_factory=list)
    """As `pretrain.layers`."""


class Retention(Section):
    """Watch while training goes on, on development text, and stop or turn back where too much is lost. Nothing of it
    changes a bit of the training, as long as no bound is broken."""

    every: int = Field(default=0, ge=0)
    """Steps between measurements (also at the start and the end); 0 measures nothing."""
    source_bits_per_byte: float = Field(default=0.05, gt=0)
    """Largest relative rise of source bits per byte over the base. A bound is broken when the whole 95% interval lies
    beyond it."""
    in_context: float = Field(default=0.2, gt=0)
    """Largest relative drop of in-context recall in the source language: the probability of the partner of a word that
    was shown a few lines up. Holds where the base does it clearly better than chance."""
    right_language: float = Field(default=0.0, ge=0, le=1)
    """Smallest share of continuations of source-language prompts in the source language; 0 sets no bound."""
    on_breach: Literal["stop", "rollback"] = "stop"
    """`stop` ends the stage with the best checkpoint as its result; `rollback` goes back to it, raises replay, and goes
    on."""
    raise_replay: float = Field(default=0.1, gt=0, lt=1)
    """What `rollback` adds to `replay_ratio`."""
    rollbacks: int = Field(default=2, ge=1)
    """So many times at most; then it stops."""
    keep_best: int = Field(default=1, ge=1)
    """How many of the best measured checkpoints to keep beside the newest (`compute.keep_checkpoints`)."""
    metric: Literal[
        "target_bits_per_byte", "source_bits_per_byte", "target_accuracy", "source_accuracy", "in_context"
    ] = "target_bits_per_byte"
    """What they are the best by; those that broke a bound do not count."""
    result: Literal["last", "best"] = "last"
    """The model of a run that was not stopped: its last one, or the best one measured."""
    documents: int = Field(default=40, ge=2)
    """At most this many development documents per language, of which the first 2,000 characters are read."""
    items: int = Field(default=48, ge=8)
    """Items of the in-context probe."""
    target_prompts: list[str] = Field(default_factory=list)
    """Prompts to continue in the new language; empty takes the beginnings of eight development documents."""
    source_prompts: list[str] = Field(default_factory=list)
    """The same in the source language."""
    max_new_tokens: int = Field(default=24, ge=0)
    """Length of the continuations; 0 writes none."""


class Pretrain(Section):
    """Continual pretraining on the new language, with replay of the old."""

    tokens: int = Field(default=10_000_000, ge=1)
    """Training budget in tokens, replay included; rounded up to whole steps."""
    mixture: Mixture = Field(default_factory=Mixture)
    """How much of it comes from which source."""
    sequence_length: int = Field(default=512, ge=16)
    """Tokens of one packed row."""
    batch_tokens: int = Field(default=8192, ge=16)
    """Tokens of one optimizer step, replay included."""
    mode: Literal["full", "lora", "embeddings", "new_rows"] = "full"
    """What learns: `full` everything; `lora` adapters beside a frozen transformer, and new rows; `embeddings` embedding
    and head; `new_rows` nothing but the rows of new tokens there."""
    layers: list[int] = Field(default_factory=list)
    """For `full` and `lora`: the decoder's layers that learn, such as `[0, 1, -2, -1]` for bottom and top two; all when
    empty."""
    lora: Lora = Field(default_factory=Lora)
    """Options of mode `lora`."""
    phases: list[Phase] = Field(default_factory=list)
    """Modes one after the other, instead of `mode` and `layers`."""
    learning_rate: float = Field(default=2e-4, gt=0)
    """Peak rate of the transformer's weights."""
    new_rows_learning_rate: float = Field(default=1e-3, gt=0)
    """Peak rate of embedding and head rows of new tokens."""
    old_rows_learning_rate: float = Field(default=2e-4, ge=0)
    """Peak rate of embedding and head rows the base had; 0 keeps them bit-identical."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Decay of matrices; embeddings, norms and biases have none."""
    optimizer: Literal["adamw", "muon", "adamw_8bit"] = "adamw"
    """What moves the weights: `adamw`; `muon` for the transformer's matrices, at the same rates; `adamw_8bit`, whose
    state of those matrices takes a quarter of the memory (bitsandbytes). Rows of tokens learn by AdamW in each."""
    gradient_clip: float = Field(default=1.0, gt=0)
    """Largest gradient norm."""
    z_loss: float = Field(default=0.0, ge=0)
    """Weight of the z-loss, which keeps logits from drifting; 1e-4 is usual, 0 is none."""
    ema_decay: float = Field(default=0.0, ge=0, lt=1)
    """Decay of a moving average of the weights that becomes the result, such as 0.999; 0 takes the last weights."""
    schedule: Literal["wsd", "cosine"] = "wsd"
    """Learning-rate schedule: warm-up, stable, decay; or cosine."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of steps for warm-up."""
    decay: float = Field(default=0.4, ge=0, le=1)
    """Share of steps for the decay of `wsd`."""
    replay: Literal["self", "corpus", "none"] = "self"
    """Source-language replay: `self` (written by the base), `corpus` (train split of corpus.source), or `none`."""
    replay_ratio: float = Field(default=0.25, ge=0, lt=1)
    """Share of training tokens that is replay."""
    replay_loss: Literal["distill", "text"] = "distill"
    """`distill` matches the base's own predictions on replay rows; `text` predicts the replay text. Use `text` for
    languages in the base's own script, whose extension changes how source-language text is cut."""
    replay_tokens: int = Field(default=0, ge=0)
    """Tokens that `self` writes; fewer than the run replays are repeated. 0 writes as many as are replayed."""
    replay_temperature: float = Field(default=1.0, gt=0)
    """Sampling temperature of `self`."""
    seed: int = 0
    """Seed of data order and of self-written replay."""
    retention: Retention = Field(default_factory=Retention)
    """Watch what is kept while training goes on."""


class Prompts(Section):
    """Prompts for side-by-side generations."""

    target: list[str] = Field(default_factory=list)
    """Prompts in the language to teach."""
    source: list[str] = Field(default_factory=list)
    """Prompts in the source language."""
    file: str | None = None
    """More prompts: a TOML file, see docs/report.md; its content counts, not its name."""
    shipped: bool = True
    """Also the prompts that come with langgraft: for Cantonese, Hindi, Thai, Japanese, Persian and English."""


class Gates(Section):
    """Bounds the result must keep; `run` exits 1 when one fails. Leave a field out to set no bound."""

    target_gain: float | None = None
    """Smallest relative drop of target bits per byte, such as 0.28; its 95% interval must exclude zero."""
    source_loss: float | None = 0.05
    """Largest relative rise of source bits per byte, such as 0.015."""
    tokens_saved: float | None = None
    """Smallest share of target tokens saved, such as 0.5."""


class ChoiceSection(Section):
    """Choose the right one of several texts: what a model understands of a language for which there is no benchmark."""

    parallel: list[str] = Field(default_factory=list)
    """Files with text in both languages (rows with a field for each code, PO, TMX, ...), for translation choice."""
    continuation: bool = False
    """Continuation choice from the test split, in both languages."""
    items: int = Field(default=200, ge=20)
    """At most this many items each; 100 give intervals of ten points to either side."""
    options: int = Field(default=4, ge=2, le=10)
    """Texts to choose from."""
    shots: int = Field(default=3, ge=0, le=20)
    """Example pairs before an item of translation choice."""


class LabelledSection(Section):
    """A labelled set, asked as a choice; one `[evaluate.classification.NAME]` table each."""

    path: str
    """Rows with fields: JSONL, JSON, CSV, TSV or Parquet."""
    prompt: str
    """What stands before the options, with `{field}` where a row's text goes, such as `"{premise} Question: ..."`."""
    words: dict[str, str] = Field(default_factory=dict)
    """Entailment and sentiment: for every label as the file writes it the word that is asked for."""
    options: list[str] = Field(default_factory=list)
    """Multiple choice: the fields that hold the options."""
    label: str = "label"
    """The field with the label, or with the number or letter of the right option."""
    first: int = 0
    """Number of the first option."""
    setting: Literal["target", "source", "translate_test"] = "target"
    """What the file holds: the set in the new language, in the source language, or translated into that."""


class Evaluate(Section):
    """Measure base and adapted model on the held-out test split."""

    documents: int = Field(default=1000, ge=2)
    """At most this many test documents per language."""
    window: int = Field(default=512, ge=16)
    """Longest context in tokens."""
    stride: int = Field(default=256, ge=1)
    """How far windows advance over longer documents, in tokens."""
    resamples: int = Field(default=2000, ge=100)
    """Bootstrap resamples of the intervals."""
    prompts: Prompts = Field(default_factory=Prompts)
    """Prompts for side-by-side generations."""
    max_new_tokens: int = Field(default=60, ge=1)
    """Length of the generations."""
    choice: ChoiceSection = Field(default_factory=ChoiceSection)
    """Translation choice and continuation choice."""
    minimal_pairs: list[str] = Field(default_factory=list)
    """Files of minimal pairs in the source language: rows with `sentence_good` and `sentence_bad`, as in BLiMP."""
    code_mixed: list[str] = Field(default_factory=list)
    """Files of text that mixes both languages, for bits per byte."""
    classification: dict[str, LabelledSection] = Field(default_factory=dict)
    """Labelled sets by name: entailment, sentiment, multiple choice; `choice.items` bounds each."""
    translation: TranslationSection = Field(default_factory=TranslationSection)
    """Translation in both directions, scored with chrF and BLEU."""
    summarisation: dict[str, SummariesSection] = Field(default_factory=dict)
    """Sets of documents with summaries by name, scored with chrF and ROUGE-L."""
    chat: ChatSection = Field(default_factory=ChatSection)
    """Whether answers come to an end."""
    generated: int = Field(default=0, ge=0)
    """Beginnings of this many test documents per language to continue, for right-language rate, script purity and
    repetition."""
    gates: Gates = Field(default_factory=Gates)
    """Bounds the result must keep."""
    seed: int = 0
    """Seed of the bootstrap."""


Quant = Literal[
    "f32",
    "f16",
    "bf16",
    "q8_0",
    "q5_1",
    "q5_0",
    "q4_1",
    "q4_0",
    "q6_k",
    "q5_k_m",
    "q5_k_s",
    "q4_k_m",
    "q4_k_s",
    "q3_k_l",
    "q3_k_m",
    "q2_k",
]


class Export(Section):
    """Write artefacts other tools read, and prove them."""

    to: list[Literal["hf", "gguf", "ollama", "adapter"]] = Field(default_factory=lambda: ["hf"])  # type: ignore[arg-type]
    """What to write: a hub folder, GGUF files, one of them (the last `quant`) with a Modelfile for Ollama, an adapter
    folder (LoRA and new rows, where nothing else learned)."""
    quant: list[Quant] = Field(default_factory=lambda: ["f16", "q8_0"])  # type: ignore[arg-type]
    """Formats of the GGUF files: 16, 8, 5 and 4 bits, and llama.cpp's k-quants such as q4_k_m."""
    parity_lines: int = Field(default=2000, ge=1)
    """Lines of mixed text on which token ids must agree between the artefacts."""
    accept_mismatch: float = Field(default=0.0, ge=0, le=1)
    """Share of those lines that may get other ids in llama.cpp, where it has no pre-tokenizer that splits alike."""


class Publish(Section):
    """Put the exported hub folder and the cards on the Hugging Face hub; a dry run unless told otherwise."""

    model: str
    """Repository of the model: `owner/name`. It is created where there is none."""
    data: str | None = None
    """Data set's repository for the data card, `owner/name`; the card goes into the model's too, as `data/`. The text
    itself is not published."""
    private: bool = False
    """Only the owner sees what is created."""
    dry_run: bool = True
    """List what would go, with sums, and upload nothing."""
    license: str | None = None
    """Licence of the model, as an id of the hub; by default the one that follows from base and text."""
    base_license: str | None = None
    """Licence of the base, where no file in its folder says it."""
    force: bool = False
    """Publish although a gate failed or licences conflict."""


class Recipe(Section):
    """A whole recipe."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run: its folder below `runs/`."""
    model: Model
    corpus: Corpus
    tokenizer: Tokenizer = Field(default_factory=Tokenizer)
    surgery: Surgery = Field(default_factory=Surgery)
    pretrain: Pretrain | None = None
    align: Align | None = None
    sft: Sft | None = None
    evaluate: Evaluate | None = None
    export: Export | None = None
    publish: Publish | None = None
    compute: ComputeSection = Field(default_factory=ComputeSection)
