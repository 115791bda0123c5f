"""Number formats of GGUF files, the table of what each costs, and files that fail."""

import importlib.util
from pathlib import Path

import pytest
from gguf import GGUFReader
from pico import ENGLISH, pico_model, pico_writer

from langgraft.errors import ModelError
from langgraft.exporting.formats import export_gguf
from langgraft.exporting.gguf_quants import K_QUANTS, QUANTS, TYPES, fallback_note, quantise
from langgraft.exporting.gguf_writer import write_gguf
from langgraft.exporting.manifest import MANIFEST, manifest_gates
from langgraft.exporting.parity import kl_divergence, parity_lines, quant_warning
from langgraft.exporting.prove import prove_all, prove_gguf, table_lines
from langgraft.recipe import Export

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed"
)
LINES = parity_lines(200)


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learned something, so that rounding changes what it says."""
    return pico_writer(tmp_path_factory.mktemp("quants") / "model", steps=40)


def types(path: Path) -> dict[str, str]:
    return {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(path).tensors}


def test_every_format_is_written_proven_and_listed(writer: Path, tmp_path: Path) -> None:
    summary = export_gguf(writer, tmp_path / "out", quant=QUANTS, name="m")
    proven = prove_all(writer, summary, LINES)
    assert [row["name"] for row in proven["table"]] == list(QUANTS)
    assert all(gate["passed"] for gate in proven["gates"])
    table = {row["name"]: row for row in proven["table"]}
    assert table["f16"]["mismatches"] == table["q4_k_m"]["mismatches"] == 0
    assert table["f16"]["kl"] < 1e-3
    assert table["q8_0"]["kl"] < 0.05
    assert table["q4_0"]["kl"] > table["q5_0"]["kl"] > table["q8_0"]["kl"] > table["f32"]["kl"]
    assert table["q4_0"]["bytes"] < table["q5_0"]["bytes"] < table["q8_0"]["bytes"] < table["f16"]["bytes"]
    lines = table_lines(proven["table"])
    assert len(lines) == 1 + len(QUANTS)
    assert "0 of  200" in lines[1]
    assert manifest_gates(tmp_path / "out")[0]["passed"]
    assert len(list((tmp_path / "out").iterdir())) == len(QUANTS) + 1  # the 16-bit source of the k-quants is gone


def test_the_head_keeps_eight_bits(writer: Path, pico_untied: Path, tmp_path: Path) -> None:
    write_gguf(writer, tmp_path / "a.gguf", quant="q4_0")
    found = types(tmp_path / "a.gguf")
    assert (found["token_embd.weight"], found["blk.0.ffn_up.weight"]) == ("Q8_0", "Q4_0")
    write_gguf(pico_untied, tmp_path / "b.gguf", quant="q5_1")
    found = types(tmp_path / "b.gguf")
    assert (found["token_embd.weight"], found["output.weight"]) == ("Q5_1", "Q8_0")


def test_rows_that_do_not_fit_are_told(tmp_path: Path) -> None:
    folder = pico_model(tmp_path / "m", hidden=96)
    summary = export_gguf(folder, tmp_path / "out", quant=("q4_k_m",))
    facts = summary["files"]["q4_k_m"]
    assert "blk.0.ffn_up.weight" in facts["fallback"]
    assert any(note.startswith("q4_k_m: 15 matrices whose rows are no multiple of 256") for note in facts["notes"])
    assert fallback_note("q4_k_m", {}) is None


def test_a_warning_when_answers_flip(writer: Path, tmp_path: Path) -> None:
    write_gguf(writer, tmp_path / "good.gguf", quant="f16")
    good = kl_divergence(writer, tmp_path / "good.gguf", ENGLISH, threads=1, answers=6)
    assert (good["answers"], good["answers_changed"]) == (6, 0)
    assert quant_warning("f16", good) is None
    write_gguf(pico_model(tmp_path / "other", seed=5), tmp_path / "bad.gguf", quant="f16")
    bad = kl_divergence(writer, tmp_path / "bad.gguf", ENGLISH, threads=1, answers=6)
    assert bad["answers_changed"] == 6
    text = quant_warning("q4_k_m", bad)
    assert text is not None
    assert "6 of 6 short greedy answers change" in text


def test_a_file_that_fails_is_not_left_as_gguf(writer: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    # A wrong `pre`: digits are no longer cut one by one.
    summary = export_gguf(writer, out, quant=("f16",), pre="gpt-2", name="m")
    summary["files"]["f16"]["quant"] = "f16"
    proven = prove_all(writer, summary, [*LINES, "1969 and 2024 and 100 and 1000"] * 3)
    wrong = [gate for gate in proven["gates"] if not gate["passed"]]
    if not wrong:  # a pico tokenizer has no token of two digits: another splitting shows elsewhere
        pytest.fail("the wrong pre was not found")
    assert "lines differ" in wrong[0]["value"]
    assert [path.name for path in out.iterdir()] == ["m-f16.gguf.failed"]
    assert not (out / MANIFEST).exists()


def test_a_truncated_file_is_refused(writer: Path, tmp_path: Path) -> None:
    facts = write_gguf(writer, tmp_path / "m.gguf")
    data = (tmp_path / "m.gguf").read_bytes()
    (tmp_path / "m.gguf").write_bytes(data[: len(data) - 5000])
    with pytest.raises(ModelError, match=r"llama\.cpp cannot load .*not within the file bounds"):
        prove_gguf(writer, facts, LINES)
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf.failed"]


def test_another_models_weights_are_refused(writer: Path, tmp_path: Path) -> None:
    facts = write_gguf(pico_model(tmp_path / "other", seed=5), tmp_path / "m.gguf")
    proof = prove_gguf(writer, facts, LINES, threads=1)
    assert [gate["passed"] for gate in proof["gates"]] == [True, False]
    light = write_gguf(pico_model(tmp_path / "again", seed=5), tmp_path / "n.gguf")
    assert len(prove_gguf(writer, light, LINES, divergence=False)["gates"]) == 1


def test_bad_sources(writer: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="unknown k-quant `q8_0`"):
        quantise(tmp_path / "a.gguf", tmp_path / "b.gguf", "q8_0")
    (tmp_path / "a.gguf").write_bytes(b"GGUF no")
    with pytest.raises(ModelError, match=r"llama\.cpp could not make q4_k_m"):
        quantise(tmp_path / "a.gguf", tmp_path / "b.gguf", "q4_k_m")
    assert [path.name for path in tmp_path.iterdir()] == ["a.gguf"]
    with pytest.raises(ModelError, match="unknown GGUF type `none`"):
        export_gguf(writer, tmp_path / "out", quant=())


def test_recipe_and_table_name_the_same_formats() -> None:
    assert Export(quant=list(QUANTS)).quant == [*TYPES, *K_QUANTS]  # type: ignore[arg-type]
