"""`tokenizer.model`, SentencePiece's own file: give it the pieces that tokenizer.json has gained.

In SentencePiece's BPE a piece's score is its priority. New pieces get scores below the base's lowest,
descending in id order, so that every old piece is joined before any new one and old text keeps its pieces.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from langgraft.errors import TokenizerError

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

MODEL = "tokenizer.model"
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
BPE = 2  # TrainerSpec.ModelType


def read_model(path: Path) -> Any:
    """Read a tokenizer.model as a protocol-buffer message (`pieces` of `piece`, `score`, `type`).

    Raises:
        TokenizerError: it is no SentencePiece model.
    """
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    proto: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]  # made when it is imported
    try:
        proto.ParseFromString(Path(path).read_bytes())
    except DecodeError as error:
        raise TokenizerError(f"{path} is no SentencePiece model; download the base's again") from error
    if not proto.pieces:
        raise TokenizerError(f"{path} is a SentencePiece model without pieces; download the base's again")
    return proto


def processor(path: Path) -> "SentencePieceProcessor":
    """The SentencePiece library's own tokenizer of a tokenizer.model."""
    from sentencepiece import SentencePieceProcessor

    return SentencePieceProcessor(model_file=str(path))


def lowest_score(proto: Any) -> float:
    """The lowest score of an ordinary piece."""
    return min((piece.score for piece in proto.pieces if piece.type == NORMAL), default=0.0)


def extended_model(path: Path, data: dict[str, Any]) -> bytes:
    """The base's tokenizer.model at `path` with the pieces that a tokenizer.json has beyond it.

    Added tokens that the base keeps only in tokenizer.json become control or user-defined pieces, so that ids
    agree; ids without any token become unused pieces.

    Raises:
        TokenizerError: the file is no SentencePiece BPE model, or has other ids than tokenizer.json.
    """
    proto = read_model(path)
    if proto.trainer_spec.model_type != BPE:
        raise TokenizerError(
            f"{path} is no BPE model, but the tokenizer.json beside it is; remove the one that is not the base's"
        )
    vocab, count = data["model"]["vocab"], len(proto.pieces)
    for i, piece in enumerate(proto.pieces):
        if vocab.get(piece.piece) != i:
            raise TokenizerError(
                f"{path} and the tokenizer.json beside it differ: piece {piece.piece!r} has id {i} and "
                f"{vocab.get(piece.piece)}; remove the one that is not the base's"
            )
    added = {token["content"]: token for token in data.get("added_tokens", [])}
    tokens = {i: token for token, i in vocab.items() if i >= count and token not in added}
    if not tokens:
        return path.read_bytes()
    special = {token["id"]: token for token in added.values()}
    lowest = lowest_score(proto)
    step = max(1.0, abs(lowest) * 2**-20)  # scores have 24 bits: a smaller step would vanish
    for i in range(count, max(tokens) + 1):
        if i in tokens:
            lowest -= step
            proto.pieces.add(piece=tokens[i], score=lowest, type=NORMAL)
        elif i in special:
            kind = CONTROL if special[i].get("special") else USER_DEFINED
            proto.pieces.add(piece=special[i]["content"], score=0.0, type=kind)
        else:
            proto.pieces.add(piece=f"<unused id {i}>", score=0.0, type=UNUSED)
    proto.trainer_spec.vocab_size = len(proto.pieces)
    return bytes(proto.SerializeToString(deterministic=True))
