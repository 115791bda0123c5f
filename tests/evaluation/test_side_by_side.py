"""Greedy continuations: new text only, the same every time, in the order of the prompts."""

from pathlib import Path

from command import Finished

from langgraft.evaluation.side_by_side import continuations


def test_continuations_are_new_text_in_order_and_repeatable(finished: Finished) -> None:
    base = finished.recipe.parent.parent / "base"
    prompts = ["The quick", "Water boils"]
    first = continuations(base, prompts, max_new_tokens=8, threads=1, device="cpu")
    assert first == continuations(base, prompts, max_new_tokens=8, threads=1, device="cpu")
    assert continuations(base, prompts[::-1], max_new_tokens=8, threads=1, device="cpu") == first[::-1]
    assert all(text and not text.startswith(prompt) for text, prompt in zip(first, prompts, strict=True))


def test_length_is_bounded(finished: Finished) -> None:
    base = finished.recipe.parent.parent / "base"
    short = continuations(base, ["The"], max_new_tokens=1, threads=1, device="cpu")[0]
    longer = continuations(base, ["The"], max_new_tokens=6, threads=1, device="cpu")[0]
    assert longer.startswith(short)
    assert len(longer) > len(short)


def test_no_prompts_need_no_model(tmp_path: Path) -> None:
    assert continuations(tmp_path / "nothing here", []) == []
