"""SentencePiece BPE (Llama-2, TinyLlama, Mistral, Gemma) in GGUF: scores, token types and the space in front.

llama.cpp's `llama` tokenizer joins the two neighbours whose union has the best score, as SentencePiece does,
and knows no merges. The scores come from `tokenizer.model`; where a base has only tokenizer.json, a token's
score is made from the place of its first merge, which is the same order.
"""

from pathlib import Path
from typing import Any

from langgraft.errors import ModelError, TokenizerError
from langgraft.tokenizer.files import SPACE
from langgraft.tokenizer.spm_model import MODEL, read_model

# Token types as the GGUF specification and SentencePiece number them.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


def read_spm(
    document: dict[str, Any], path: Path, tokens: list[str], types: list[int]
) -> tuple[list[float], list[int], bool, list[str]]:
    """`(scores, types, space in front, notes)` of a SentencePiece BPE tokenizer.json at `path`.

    Raises:
        ModelError: the text is changed or split in a way that llama.cpp's SentencePiece tokenizer cannot, or
            the tokenizer.model beside the file is of another tokenizer.
    """
    prefix, notes = _space_prefix(document, path)
    unknown = document["model"].get("unk_token")
    kinds = [
        UNKNOWN if token == unknown else BYTE if kind == NORMAL and is_byte(token) else kind
        for token, kind in zip(tokens, types, strict=True)
    ]
    made = [
        token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL and _can_be_joined(token, tokens)
    ]
    notes += [f"llama.cpp reads {token} in plain text as the control token, by joining its parts" for token in made]
    beside = path.with_name(MODEL)
    scores = scores_of_model(beside, tokens, kinds) if beside.is_file() else merge_scores(document, tokens)
    return scores, kinds, prefix, notes


def is_byte(token: str) -> bool:
    """Whether a token is one of the 256 byte tokens, such as `<0xE5>`."""
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")


def _can_be_joined(token: str, tokens: list[str]) -> bool:
    known = set(tokens)
    return any(token[:cut] in known and token[cut:] in known for cut in range(1, len(token)))


def merge_scores(document: dict[str, Any], tokens: list[str]) -> list[float]:
    """Scores that join in the order of the merges: minus the place of a token's first merge.

    Tokens that no merge makes (characters, bytes, special tokens) come below all others. Scores are stored in
    32 bits, which hold whole numbers exactly to 16 million.
    """
    first: dict[str, int] = {}
    merges = document["model"]["merges"]
    for place, merge in enumerate(merges):
        first.setdefault("".join(merge.split(" ", 1) if isinstance(merge, str) else merge), place)
    return [-float(first.get(token, len(merges) + i)) for i, token in enumerate(tokens)]


def scores_of_model(path: Path, tokens: list[str], kinds: list[int]) -> list[float]:
    """Scores by id of a tokenizer.model, whose pieces must be those of tokenizer.json, added tokens apart.

    Raises:
        ModelError: they differ, or it is no SentencePiece model.
    """
    try:
        pieces = read_model(path).pieces
    except TokenizerError as error:
        raise ModelError(str(error)) from error
    for i, piece in enumerate(pieces):
        other = tokens[i] if i < len(tokens) else "none"
        if piece.piece != other and piece.type != UNUSED:
            raise ModelError(
                f"{path} and the tokenizer.json beside it differ: id {i} is {piece.piece!r} and {other!r}; "
                "remove the one that is not the model's"
            )
    missing = [token for token, kind in zip(tokens[len(pieces) :], kinds[len(pieces) :], strict=True) if kind == NORMAL]
    if missing:
        raise ModelError(
            f"{path} has {len(pieces):,} pieces and lacks {len(missing):,} tokens of the tokenizer.json beside it "
            f"(the first is {missing[0]!r}): it is the base's and not the extended one; extend the tokenizer again"
        )
    return [piece.score for piece in pieces] + [0.0] * (len(tokens) - len(pieces))


def _space_prefix(document: dict[str, Any], path: Path) -> tuple[bool, list[str]]:
    """Whether a space is put before the text; refuses every pipeline but SentencePiece's own."""
    steps = document.get("normalizer") or {}
    normalizers = steps.get("normalizers", [steps]) if steps else []
    splitter = document.get("pre_tokenizer")
    kinds = [step.get("type") for step in normalizers]
    replaces = [step for step in normalizers if step.get("type") == "Replace"]
    spaces = (
        len(replaces) == 1 and replaces[0].get("pattern") == {"String": " "} and replaces[0].get("content") == SPACE
    )
    if kinds == ["Prepend", "Replace"] and normalizers[0].get("prepend") == SPACE and spaces and splitter is None:
        return True, []
    # Gemma splits at spaces that its normaliser has already replaced, so the split never acts.
    idle = splitter is None or (splitter.get("type") == "Split" and splitter.get("pattern") == {"String": " "})
    if kinds == ["Replace"] and spaces and idle:
        return False, []
    if not kinds and splitter is not None and splitter.get("type") == "Metaspace" and not splitter.get("split", True):
        scheme = splitter.get("prepend_scheme", "always")
        if scheme == "never":
            return False, []
        note = "text that begins with a space gets no further one, which llama.cpp adds"
        after = "; nor does text after a special token" if scheme == "first" else ""
        return True, [note + after]
    what = " + ".join(str(kind) for kind in [*kinds, splitter and splitter.get("type")] if kind) or "nothing"
    raise ModelError(
        f"{path} prepares text with {what}, and llama.cpp's SentencePiece tokenizer only writes spaces as {SPACE}, "
        "with or without one in front; ship the hub folder"
    )
