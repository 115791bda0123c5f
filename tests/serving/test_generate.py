"""Generation on both backends: the same text, remembered beginnings, stop strings, log-probabilities, refusals."""

import math
from pathlib import Path

import numpy as np
import pytest

from langgraft.errors import InputError, LanggraftError, ModelError
from langgraft.serving.generate import answer, chat_prompt, generate, scored, text_prompt
from langgraft.serving.model import LanguageModel, shared
from langgraft.serving.models import open_model
from langgraft.serving.sampling import Sampling

GREEDY = Sampling(max_tokens=12, temperature=0)


def test_it_goes_on_as_transformers_does(writer: Path, model: LanguageModel) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(writer)
    ids = tokenizer("The quick brown", return_tensors="pt")
    with torch.inference_mode():
        reference = AutoModelForCausalLM.from_pretrained(writer)
        out = reference.generate(**ids, do_sample=False, max_new_tokens=12, eos_token_id=[0, 2], pad_token_id=2)
    wanted = out[0, ids["input_ids"].shape[1] :].tolist()
    found = answer(model, text_prompt(model, "The quick brown"), GREEDY)
    assert [token.id for token in found.tokens] == wanted
    assert found.text == tokenizer.decode(wanted, skip_special_tokens=True)
    assert " over the lazy dog" in found.text


def test_what_is_remembered_changes_nothing(model: LanguageModel) -> None:
    prompt = text_prompt(model, "Language models learn")
    whole = model.logits(prompt, 0)
    answer(model, prompt, GREEDY, slot=0)
    assert shared(model.remembered(0), prompt) == len(prompt)
    for other in ("Language models", "Water boils at", "Language models learn from"):
        again = text_prompt(model, other)
        fresh = model.logits(again, 1)
        assert np.abs(model.logits(again, 0) - fresh).max() < 1e-4
        model.logits([0], 1)
    assert np.abs(model.logits(prompt, 1) - whole).max() < 1e-4


def test_texts_side_by_side_do_not_mix(model: LanguageModel) -> None:
    prompts = [text_prompt(model, "Water boils"), text_prompt(model, "She said")]
    alone = [answer(model, prompt, GREEDY).text for prompt in prompts]
    both = [generate(model, prompt, GREEDY, slot=slot) for slot, prompt in enumerate(prompts)]
    texts = ["", ""]
    for _ in range(20):
        for i, one in enumerate(both):
            piece = next(one, None)
            texts[i] += piece.text if piece else ""
    assert texts == alone


def test_texts_read_together_are_as_texts_read_alone(model: LanguageModel) -> None:
    texts = {0: text_prompt(model, "Water boils at"), 1: text_prompt(model, "She said that " * 6)}
    together = model.next_logits(texts)
    for slot, ids in texts.items():
        other = 1 - slot
        assert model.remembered(slot) == ids
        assert np.abs(model.logits(ids, other) - together[slot]).max() < 1e-4
        model.logits(texts[other], other)


def test_log_probabilities_are_the_models_own(model: LanguageModel) -> None:
    prompt = text_prompt(model, "The quick brown")
    hot = Sampling(max_tokens=4, temperature=3.0, seed=1, repetition_penalty=1.3, logprobs=3)
    found = answer(model, prompt, hot)
    scores = scored(model, [*prompt, *(token.id for token in found.tokens)], 3)
    assert scores[0].logprob is None
    for token, again in zip(found.tokens, scores[len(prompt) :], strict=True):
        assert token.logprob == pytest.approx(again.logprob, abs=1e-4)
        assert [name for name, _, _ in token.top] == [name for name, _, _ in again.top]
        assert list(token.top) == sorted(token.top, key=lambda one: -one[2])
    rows = model.all_logits(prompt)
    assert rows.shape[0] == len(prompt)
    shares = np.exp(rows[-2].astype(np.float64) - rows[-2].max())
    assert scores[len(prompt) - 1].logprob == pytest.approx(math.log(shares[prompt[-1]] / shares.sum()), abs=1e-4)


def test_a_seed_gives_the_same_text_and_another_one_another(model: LanguageModel) -> None:
    prompt = text_prompt(model, "The")
    texts = [answer(model, prompt, Sampling(max_tokens=20, temperature=1.5, seed=seed)).text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_a_stop_string_ends_the_text_before_it(model: LanguageModel) -> None:
    prompt = text_prompt(model, "The quick brown")
    whole = answer(model, prompt, GREEDY).text
    stop = whole[7:11]
    found = answer(model, prompt, Sampling(max_tokens=12, temperature=0, stop=(stop,)))
    assert found.finish == "stop"
    assert found.text == whole[: whole.find(stop)]


def test_the_end_of_the_text_and_the_limit_are_told_apart(model: LanguageModel) -> None:
    prompt = text_prompt(model, "Water boils at 100 degrees and freezes at")
    assert answer(model, prompt, Sampling(max_tokens=2, temperature=0)).finish == "length"
    assert answer(model, prompt, Sampling(max_tokens=60, temperature=0)).finish == "stop"
    nothing = answer(model, prompt, Sampling(max_tokens=0))
    assert (nothing.text, nothing.tokens, nothing.finish) == ("", [], "length")


def test_the_context_is_a_limit_too(model: LanguageModel) -> None:
    prompt = text_prompt(model, "a b c d " * 40)[:120]
    assert len(answer(model, prompt, Sampling(max_tokens=100, temperature=2.0, seed=0)).tokens) <= 8
    with pytest.raises(InputError, match=r"the prompt has .* tokens, and the model reads at most 128"):
        answer(model, text_prompt(model, "a b c d " * 80), GREEDY)
    with pytest.raises(InputError, match="empty"):
        answer(model, [], GREEDY)


def test_a_conversation_goes_through_the_template(model: LanguageModel) -> None:
    ids = chat_prompt(model, [{"role": "user", "content": "Hello"}])
    assert [model.name_of(i) for i in ids][:1] == ["<|im_start|>"]
    assert "".join(model.name_of(i) for i in ids) == "<|im_start|>user\nHello<|im_end|>\n"
    assert model.bytes_of(ids[0]) == b""
    assert text_prompt(model, "") == [0]


def test_a_model_without_a_template_says_so(pico: Path, tmp_path: Path) -> None:
    import json
    import shutil

    bare = shutil.copytree(pico, tmp_path / "bare")
    config = json.loads((bare / "tokenizer_config.json").read_text())
    del config["chat_template"]
    (bare / "tokenizer_config.json").write_text(json.dumps(config))
    opened = open_model(str(bare), threads=1)
    with pytest.raises(InputError, match="no chat template; ask it to continue a text"):
        chat_prompt(opened, [{"role": "user", "content": "Hello"}])
    refusing = "{{ raise_exception('no system prompt, please') }}"
    (bare / "chat_template.jinja").write_text(refusing)
    with pytest.raises(InputError, match="refuses this conversation: no system prompt, please"):
        chat_prompt(open_model(str(bare), threads=1), [{"role": "system", "content": "Hello"}])


def test_padding_rows_are_never_drawn(tmp_path: Path) -> None:
    import torch
    from pico import pico_tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM

    padded = pico_tokenizer(tmp_path / "padded")
    config = LlamaConfig(
        vocab_size=448, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(padded)
    logits = open_model(str(padded), threads=1).logits([3, 4])
    tokens = 400
    assert np.isneginf(logits[tokens:]).all()
    assert np.isfinite(logits[:tokens]).all()


@pytest.mark.parametrize(
    "field, value",
    [("temperature", -1), ("top_p", 1.5), ("min_p", float("nan")), ("repetition_penalty", 0), ("max_tokens", -1)],
)
def test_sampling_refuses_what_makes_no_sense(field: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{field} is .*must be between"):
        Sampling(**{field: value})


def test_models_that_cannot_be_opened_say_why(tmp_path: Path, writer: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        open_model(str(tmp_path / "nothing.gguf"))
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF")
    with pytest.raises((ModelError, LanggraftError), match=r"cannot load|llama-cpp-python"):
        open_model(str(broken))
    with pytest.raises(InputError, match="at least one slot"):
        open_model(str(writer), slots=0)
    import shutil

    cut = shutil.copytree(writer, tmp_path / "cut")
    data = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelError, match=r"cut cannot be loaded"):
        open_model(str(cut))
