"""What models write: in batches as alone, whatever runs them; translations and summaries asked for and scored."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import ROOT, Finished, langgraft
from constant import constant_model
from pico import CANTONESE, ENGLISH, pico_writer, sentences

from langgraft.errors import CorpusError, InputError, ModelError
from langgraft.evaluation.answers import Answers
from langgraft.evaluation.endpoint_scorer import EndpointScorer
from langgraft.evaluation.likelihood import Prompt, Scorer
from langgraft.evaluation.models import Measured, open_scorer
from langgraft.evaluation.rows import Parallel
from langgraft.evaluation.suite import Way, evaluate
from langgraft.evaluation.summarisation import Summaries, summaries
from langgraft.evaluation.torch_writer import Stops
from langgraft.evaluation.translation import Translation, translation_measure, translations
from langgraft.evaluation.wanted import Wanted, measures
from langgraft.text import language
from langgraft.tokenizer.files import load

sys.path.append(str(ROOT / "tests" / "serving"))  # the server of those tests
YUE, EN = language("yue"), language("en")
SHOTS = "English: It rains.\nCantonese: 落緊雨。\n\nEnglish: "
HELLO = ({"role": "user", "content": "Hello!"},)


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pico_writer(tmp_path_factory.mktemp("writer") / "model", steps=160, falling=True)


@pytest.fixture(scope="module")
def scorer(writer: Path) -> Iterator[Scorer]:
    with open_scorer(Measured("base", str(writer), "folder"), device="cpu", threads=1) as opened:
        yield opened


def asked() -> list[Prompt]:
    return [*(f"{SHOTS}{text[:width]}" for width, text in zip((9, 20, 13), ENGLISH, strict=False)), "The quick", "She"]


def made_up(count: int = 60) -> list[Parallel]:
    """Pairs in which no sentence says what another one says; what they mean does not matter."""
    return [Parallel(yue, f"The word number {i} today", f"{i}", "made") for i, yue in enumerate(sentences(count))]


def test_an_answer_is_the_same_in_a_batch_as_alone(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    together = scorer.write(asked(), max_new_tokens=12)
    assert [scorer.write([prompt], max_new_tokens=12)[0] for prompt in asked()] == together
    shots = [prompt for prompt in asked() if str(prompt).startswith(SHOTS)]
    assert scorer.write(shots, max_new_tokens=12) == together[: len(shots)]  # the examples are read once for all
    monkeypatch.setattr("langgraft.evaluation.torch_writer.ROWS", 2)
    assert scorer.write(asked(), max_new_tokens=12) == together
    assert scorer.write([], max_new_tokens=12) == []


def test_answers_end_with_a_line_a_text_or_the_last_token(scorer: Scorer, tmp_path: Path) -> None:
    (whole,) = scorer.write(["The quick"], max_new_tokens=60)
    assert whole.text.startswith(" brown fox jumps over the")
    assert whole.finish == "end"
    (short,) = scorer.write(["The quick"], max_new_tokens=4)
    assert (whole.text.startswith(short.text), short.finish) == (True, "length")
    breaks = constant_model(tmp_path / "breaks", "Ċ")
    with open_scorer(Measured("breaks", str(breaks), "folder"), device="cpu", threads=1) as other:
        assert other.write(["a"], max_new_tokens=3) == [("\n\n\n", "length")]
        assert other.write(["a"], max_new_tokens=3, line=True) == [("", "line")]
    tokenizer = load(breaks)
    ids = [*tokenizer.encode("ab\ncd").ids, 2, 2]
    assert Stops(tokenizer, [2], line=True).answer(ids) == ("ab", "line")
    assert Stops(tokenizer, [2], line=False).answer(ids) == ("ab\ncd", "end")
    assert Stops(tokenizer, [2], line=False).answer(ids[:-2]) == ("ab\ncd", "length")


def test_a_model_writes_the_same_from_a_gguf_file_and_behind_a_server(
    scorer: Scorer, writer: Path, tmp_path: Path
) -> None:
    prompts: list[Prompt] = ["The quick", "def add(a,", HELLO]
    for line in (True, False):
        ours = scorer.write(prompts, max_new_tokens=16, line=line)
        if (served := remote(writer)) is not None:
            with served as url:
                endpoint = EndpointScorer(f"{url}/v1")
                assert endpoint.chats
                found = endpoint.write(prompts, max_new_tokens=16, line=line)
            assert [one.text for one in found] == [one.text for one in ours]
            assert [one.finish == "length" for one in found] == [one.finish == "length" for one in ours]
    pytest.importorskip("llama_cpp")
    from langgraft.exporting.gguf_writer import write_gguf

    write_gguf(writer, tmp_path / "pico.gguf", quant="f32", name="pico")
    with open_scorer(Measured("gguf", str(tmp_path / "pico.gguf"), "gguf"), threads=1) as gguf:
        assert gguf.chats
        assert gguf.write(prompts, max_new_tokens=16) == scorer.write(prompts, max_new_tokens=16)
        assert gguf.write(prompts, max_new_tokens=16, line=True) == scorer.write(prompts, max_new_tokens=16, line=True)


def remote(folder: Path):  # type: ignore[no-untyped-def]
    try:
        from served import serving
    except ImportError:
        return None
    return serving({"pico": folder})


def test_what_cannot_be_asked_is_said(scorer: Scorer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="reads at most 256 with an answer of 250; give fewer shots"):
        scorer.write([SHOTS], max_new_tokens=250)
    other = constant_model(tmp_path / "plain", "a")
    config = json.loads((other / "tokenizer_config.json").read_text())
    (other / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": None}))
    with open_scorer(Measured("plain", str(other), "folder"), device="cpu", threads=1) as plain:
        assert not plain.chats
        with pytest.raises(InputError, match="has no chat template"):
            plain.write([HELLO], max_new_tokens=4)


def test_a_server_that_answers_oddly_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EndpointScorer, "_find_first", lambda _: "")
    odd = EndpointScorer("http://127.0.0.1:9", "m")
    monkeypatch.setattr(EndpointScorer, "_ask", lambda *_: {"choices": []})
    with pytest.raises(ModelError, match="in a shape that is not OpenAI's"):
        odd.write(["a"], max_new_tokens=2)
    monkeypatch.undo()
    assert not odd.chats  # nobody answers there


def test_sentences_to_translate_come_after_examples_that_are_not_asked_for() -> None:
    pairs = [*made_up(), Parallel("Copy and paste it", "copy and paste IT", "same", "made")]
    there, back = (translations(pairs, YUE, EN, to_target=way, items=30, shots=3) for way in (True, False))
    assert len(there.questions) == 30
    assert (there.language, back.language, there.shots) == (YUE, EN, 3)
    assert there.left_out["copied"] == 1
    assert [one.id for one in there.questions] == [one.id for one in back.questions]
    for one in there.questions:
        assert one.prompt.count("English: ") == 4
        assert one.prompt.endswith("\nCantonese:")
        assert one.reference not in one.prompt
        assert [turn["role"] for turn in one.messages] == ["user", "assistant"] * 3 + ["user"]
        assert one.messages[-1]["content"].startswith("Translate from English into Cantonese: ")
    assert there == translations(pairs[::-1], YUE, EN, items=30, shots=3)
    assert there != translations(pairs, YUE, EN, items=30, shots=3, seed=1)


def test_sentences_of_the_training_text_are_not_asked_for() -> None:
    pairs = made_up()
    wanted = Wanted(translation=Translation(items=50), training=lambda: iter([pair.target for pair in pairs[:20]]))
    from langgraft.evaluation.pairs import training_check

    found = translations(pairs, YUE, EN, items=50, seen=training_check(wanted.training, "yue"))
    assert found.left_out["contaminated"] == 20
    assert not {pair.target for pair in pairs[:20]} & {one.reference for one in found.questions}


def test_a_translator_is_told_from_a_model_that_says_one_thing(tmp_path: Path) -> None:
    """The second model always says what stands in every reference, the first what stands in none."""
    pairs = [Parallel(f"aaaaaaa{chr(99 + i)}aaaaa", f"it is number {i} of these", f"{i}", "made") for i in range(24)]
    models = [Measured(name, str(constant_model(tmp_path / name, name)), "folder") for name in ("b", "a")]
    asked_for = translations(pairs, language("sw"), EN, items=20)
    one = translation_measure(asked_for, Translation(max_new_tokens=8), "to_target")
    found = evaluate(models, [one], tmp_path / "scores", way=Way(200), device="cpu", threads=1)
    result = found["translation"]["to_target"]
    assert result["chrf"]["models"]["b"]["mean"] == 0
    assert result["chrf"]["changes"]["a"]["verdict"] == "gain"
    assert result["bleu"]["changes"]["a"]["verdict"] == "no measurable difference"  # no word is right
    assert "tok:13a" in result["bleu"]["signature"]
    assert result["cut"] == {"b": 1, "a": 1}
    assert result["examples"][0]["written"] == {"b": "b" * 8, "a": "a" * 8}
    assert result["ask"] == {"b": "few_shot", "a": "few_shot"}
    chat = translation_measure(asked_for, Translation(max_new_tokens=8, ask="chat", shots=0), "to_target")
    assert isinstance(chat, Answers)
    with pytest.raises(InputError, match="begun with other settings"):
        evaluate(models, [chat], tmp_path / "scores", device="cpu", threads=1)


def rows(path: Path, count: int = 26) -> Path:
    found = [{"document": f"{text} {text}", "summary": f"{i} {text[:8]}"} for i, text in enumerate(sentences(count))]
    lines = [json.dumps(row, ensure_ascii=False) for row in [*found, found[0], {"document": "", "summary": "x"}]]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_documents_to_sum_up(tmp_path: Path) -> None:
    of = Summaries(str(rows(tmp_path / "news.jsonl")), shots=2, longest=12)
    found = summaries(of, YUE, EN)
    assert (len(found.questions), found.shots, found.language) == (24, 2, YUE)
    assert found.left_out == {"repeated": 1, "empty": 1}
    for one in found.questions:
        assert one.prompt.endswith("\nSummary:")
        assert len(one.messages[-1]["content"]) == len("Sum up this text in Cantonese: ") + 12
        assert all(one.reference != turn["content"] for turn in one.messages)
    for setting in ("source", "translate_test"):
        assert summaries(Summaries(of.path, setting=setting), YUE, EN).language == EN  # type: ignore[arg-type]
    seen = summaries(of, YUE, EN, seen=lambda texts: [True] * 3 + [False] * (len(texts) - 3))
    assert seen.left_out["contaminated"] == 3
    with pytest.raises(CorpusError, match=r"has no field `headline` \(it has document, summary\)"):
        summaries(Summaries(of.path, summary="headline"), YUE, EN)


def test_too_few_items_are_refused(tmp_path: Path) -> None:
    short = rows(tmp_path / "few.jsonl", 8)
    with pytest.raises(CorpusError, match=r"only 7 items for summarisation could be made of .*1 repeated, 1 empty"):
        measures(Wanted(summarisation={"few": Summaries(str(short))}), {}, YUE, EN)
    lines = [json.dumps({"yue": pair.target, "en": pair.source}) for pair in made_up(10)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines), encoding="utf-8")
    of = Translation([str(tmp_path / "pairs.jsonl")])
    with pytest.raises(CorpusError, match="only 7 items for translation could be made of"):
        measures(Wanted(translation=of), {}, YUE, EN)


def test_the_command_measures_what_is_written(writer: Path, pico: Path, tmp_path: Path) -> None:
    lines = [json.dumps({"yue": pair.target, "en": pair.source}, ensure_ascii=False) for pair in made_up(30)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "text.txt").write_text("\n".join(CANTONESE), encoding="utf-8")
    arguments = (
        "evaluate", "--models", pico, writer, "--target", tmp_path / "text.txt", "--language", "yue", "--threads", 1,
        "--translation", tmp_path / "pairs.jsonl", "--translation-items", 20, "--shots", 0, "--chat-questions", 3,
        "--summaries", rows(tmp_path / "news.jsonl"), "--max-new-tokens", 8, "-o",
    )  # fmt: skip
    done = langgraft(*arguments, tmp_path / "out", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert set(found["translation"]) == {"to_target", "to_source"}
    for one in (*found["translation"].values(), found["summarisation"]["news"]):
        assert set(one["ask"]) == {"base", "adapted"}
        assert one["chrf"]["changes"]["adapted"]["verdict"]
    assert "tok:zh" in found["translation"]["to_target"]["bleu"]["signature"]
    assert "tok:13a" in found["translation"]["to_source"]["bleu"]["signature"]
    assert found["summarisation"]["news"]["rouge_l"]["items"] == 25
    assert found["chat"]["ends"]["items"] == 3
    for said in (
        "translation to source: BLEU, base: ",
        "summarisation news: ROUGE-L",
        "chat answers that come to an end",
    ):
        assert said in done.err
    for option, value in (("ask", "poetry"), ("summaries-setting", "middle")):
        wrong = langgraft(*arguments, tmp_path / option, f"--{option}", value)
        assert wrong.code == 2
        assert f"not `{value}`" in wrong.sentence()


def test_translation_reaches_the_report(finished: Finished, tmp_path: Path) -> None:
    pairs = [{"yue": f"花園入面有{i}隻貓同埋狗", "en": pair.source} for i, pair in enumerate(made_up(30))]
    lines = [json.dumps(pair, ensure_ascii=False) for pair in pairs]
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(lines), encoding="utf-8")
    copy = finished.copy(tmp_path / "runs", without=("evaluate", "export"))
    options = [f'translation.parallel=["{file}"]', "translation.shots=0", "translation.max_new_tokens=6", "documents=2",
               "chat.questions=2", "chat.max_new_tokens=6", "prompts.shipped=false"]  # fmt: skip
    sets = [part for one in options for part in ("--set", f"evaluate.{one}")]
    refused = copy.again("--until", "evaluate", *sets, "--set", 'evaluate.translation.tokenizer="flores200"')
    assert "flores200 needs its model" in refused.sentence()
    done = copy.again("--until", "evaluate", *sets)
    assert done.code == 0, done.err
    report = json.loads((copy.run / "report.json").read_text(encoding="utf-8"))
    assert report["translation"]["to_target"]["chrf"]["signature"].startswith("nrefs:1")
    assert report["chat"]["ends"]["items"] == 2
    assert report["chat"]["template"] == "same"
    page = (copy.run / "report.html").read_text(encoding="utf-8")
    assert "tok:zh" in page
    assert "Chat answers that come to an end" in page
