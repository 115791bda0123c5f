"""`langgraft chat`: commands, history, language, context; in a real pseudo-terminal too."""

import io
import json
import os
import pty
import select
import signal
import sys
import time
from pathlib import Path

import pytest
from command import ROOT, langgraft

from langgraft.errors import InputError
from langgraft.serving.chat import Conversation, talk
from langgraft.serving.generate import answer, chat_prompt
from langgraft.serving.model import LanguageModel
from langgraft.serving.sampling import Sampling


def said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], talker: Conversation, *lines: str
) -> tuple[str, str]:
    """What a talk prints on stdout and stderr for these lines."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(line + "\n" for line in lines)))
    talk(talker)
    out = capsys.readouterr()
    return out.out, out.err


@pytest.fixture
def talker(model: LanguageModel) -> Conversation:
    """A fresh greedy conversation."""
    return Conversation(model, Sampling(max_tokens=8, temperature=0))


def test_answers_are_those_of_the_model_with_everything_said_before(
    talker: Conversation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = said(monkeypatch, capsys, talker, "The quick", "", "Water //boils")
    first = answer(talker.model, chat_prompt(talker.model, talker.said[:1]), talker.sampling, chat=True).text
    second = answer(talker.model, chat_prompt(talker.model, talker.said[:3]), talker.sampling, chat=True).text
    assert out == f"{first}\n{second}\n"
    assert [message["role"] for message in talker.said] == ["user", "assistant"] * 2


def test_commands(
    talker: Conversation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "talk.json"
    lines = ["/system Be brief.", "/language yue", "Hi", f"/save {file}", f"/save {file}", "/show", "/undo", "/undo"]
    _, err = said(monkeypatch, capsys, talker, *lines, "/set max_tokens=2", "/set warmth=2", "/set top_p=high", "/what")
    messages = json.loads(file.read_text("utf-8"))["messages"]
    assert messages[0] == {"role": "system", "content": "Be brief. Always answer in Cantonese (粵語)."}
    assert [message["role"] for message in messages] == ["system", "user", "assistant"]
    assert "Always answer in Cantonese (粵語).<|im_end|>\n<|im_start|>user\nHi" in err
    for told in (
        "exists already",
        "nothing was said yet",
        "no setting `warmth`",
        "top_p needs a number",
        "no such command",
    ):
        assert f"langgraft: {told}" in err or told in err
    assert talker.sampling.max_tokens == 2
    _, err = said(
        monkeypatch, capsys, talker, "/set temperature=-1", "/language klingon", "/save", "/help", "/quit", "x"
    )
    assert "temperature is -1" in err
    assert "klingon" in err
    assert "name the file" in err
    assert "/retry" in err
    assert talker.said == []


def test_retry_mode_and_texts(
    talker: Conversation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = said(monkeypatch, capsys, talker, "The quick", "/retry")
    assert out == 2 * f"{talker.said[1]['content']}\n"
    said(monkeypatch, capsys, talker, "/reset", "//system is a word")
    assert talker.said[0]["content"] == "/system is a word"
    out, err = said(monkeypatch, capsys, talker, "/mode", "The quick brown")
    assert "jumps over" in out
    assert "continuing texts" in err
    talker.model.template, template = None, talker.model.template
    try:
        assert "can only continue texts" in said(monkeypatch, capsys, talker, "/mode")[1]
    finally:
        talker.model.template = template


def test_a_long_talk_forgets_its_oldest_turns(talker: Conversation) -> None:
    talker.system = "Be brief."
    for number in range(20):
        talker.said += [{"role": "user", "content": f"number {number}"}, {"role": "assistant", "content": "yes"}]
    talker.said.append({"role": "user", "content": "The end"})
    text = "".join(map(talker.model.name_of, talker.prompt()))
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nnumber")
    assert "number 0<" not in text
    assert text.endswith("The end<|im_end|>\n")
    talker.said = [{"role": "user", "content": "water " * 200}]
    with pytest.raises(InputError, match="reads at most 128"):
        talker.answer(print)


def test_ctrl_c_ends_the_answer_and_keeps_it(talker: Conversation) -> None:
    def interrupt(_text: str) -> None:
        raise KeyboardInterrupt

    talker.said.append({"role": "user", "content": "The quick brown"})
    text, count, _ = talker.answer(interrupt)
    assert talker.said[-1] == {"role": "assistant", "content": text}
    assert 0 < count < 8


def test_the_command_in_a_terminal(either: Path) -> None:
    """In a pseudo-terminal: prompt, an answer, Ctrl-C at the prompt, Ctrl-D."""
    command = [sys.executable, "-m", "langgraft.cli", "chat", str(either), "--temperature", "0", "--max-tokens", "8"]
    child, terminal = pty.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # who runs the tests in the background ignores it
        os.environ.update(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TERM="xterm")
        os.execv(sys.executable, command)
    seen = b""

    def until(text: str, again: bytes = b"") -> None:
        nonlocal seen
        end = time.monotonic() + 300
        while text.encode() not in seen:
            assert time.monotonic() < end, seen.decode("utf-8", "replace")
            if select.select([terminal], [], [], 2)[0]:
                seen += os.read(terminal, 4096)
            elif again:  # a Ctrl-C before readline listens is only seen with the next key
                os.write(terminal, again)
        seen = seen.partition(text.encode())[2]

    until("/help lists the commands")
    until("> ")
    os.write(terminal, "सिर्फ हिन्दी\n".encode())
    until("tokens/s]")
    until("> ")
    os.write(terminal, b"half a line\x03")
    until("> ", again=b"\x03")
    os.write(terminal, b"\x04")
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    os.close(terminal)


def test_a_model_that_is_none_is_told(tmp_path: Path) -> None:
    done = langgraft("chat", tmp_path / "none.gguf")
    assert done.code == 2
    assert "does not exist" in done.sentence()
    assert "klingon" in langgraft("chat", tmp_path, "--language", "klingon").sentence()
