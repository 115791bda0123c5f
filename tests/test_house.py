"""The rules of the house, as HOUSE and docs/architecture.md tell them: floors, sizes, names, what is never imported."""

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import ROOT, langgraft

from langgraft.pipeline import NAMES, STAGES
from langgraft.recipe import Recipe
from langgraft.recipe_file import load_recipe, section_type

PACKAGE = ROOT / "langgraft"
GOLDEN = ROOT / "tests" / "golden" / "defaults.json"
# Lowest first. A module may import modules below it, and modules beside it in the same row.
FLOORS = (
    ("errors", "progress", "store", "text", "methods", "rebuilt", "processes"),
    ("base",),
    ("corpus", "tokenizer", "surgery", "training", "evaluation", "exporting", "serving"),
    (
        "recipe",
        "recipe_file",
        "recipe_align",
        "recipe_compute",
        "recipe_evaluation",
        "recipe_section",
        "recipe_sft",
    ),
    ("runs",),
    ("stages", "summary"),
    ("pipeline", "external", "parts"),
    ("launch", "launch_slurm"),
    ("status", "newrecipe", "commands", "commands_tokenizer", "commands_evaluate", "cli_options"),
    ("doctor",),
    ("cli_tokenizer", "cli_serving", "cli_reports", "cli_training", "cli_evaluate", "cli_publish"),
    ("cli",),
    ("__main__",),
)
LEVEL = {name: level for level, names in enumerate(FLOORS) for name in names}
MODULES = sorted(PACKAGE.rglob("*.py"))
METHOD_TABLES = {
    # table -> (arguments its caller always gives, so that everything else must have a default)
    "langgraft.surgery.init:INITS": {"generator", "donor", "path"},  # the last two: options a user must give
    "langgraft.training.schedule:SCHEDULES": {"warmup", "decay", "minimum"},
    "langgraft.training.modes:MODES": set(),
    "langgraft.training.optimizers:OPTIMIZERS": {"betas"},
    "langgraft.training.tracking:TRACKERS": {"name", "settings", "step", "identity"},
    "langgraft.exporting.formats:EXPORTS": set(),
    "langgraft.launch:LAUNCHERS": set(),
    "langgraft.corpus.readers:READERS": set(),
    "langgraft.corpus.parallel:FORMATS": set(),
    "langgraft.tokenizer.methods:METHODS": {"language", "new_tokens", "donor"},
}


def dotted(path: Path) -> str:
    """`langgraft/corpus/split.py` -> `langgraft.corpus.split`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """Every langgraft module that `path` imports, at the top, inside functions or for type checking."""
    known = {dotted(module) for module in MODULES}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "langgraft")
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "langgraft":
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in known else node.module


GRAPH = {dotted(path): sorted(set(imports(path))) for path in MODULES}


def test_imports_only_go_down() -> None:
    wrong = []
    for module, targets in GRAPH.items():
        for target in targets:
            if module == "langgraft" or target == "langgraft":
                continue
            above, below = LEVEL[module.split(".")[1]], LEVEL[target.split(".")[1]]
            if below > above:
                wrong.append(f"{module} imports {target}")
    assert wrong == []


def test_no_import_cycles() -> None:
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join((*way[way.index(module) :], module))
        if module not in done:
            for target in GRAPH.get(module, ()):
                visit(target, (*way, module))
            done.add(module)

    for module in GRAPH:
        visit(module, ())


def test_no_cycles_between_packages() -> None:
    packages: dict[str, set[str]] = {}
    for module, targets in GRAPH.items():
        if module != "langgraft":
            own = module.split(".")[1]
            packages.setdefault(own, set()).update(t.split(".")[1] for t in targets if t != "langgraft")
    for name, others in packages.items():
        both = [other for other in others - {name} if name in packages.get(other, set())]
        assert both == [], f"{name} and {both} import one another"


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_library_packages_never_see_a_recipe(path: Path) -> None:
    if LEVEL.get(dotted(path).partition(".")[2].split(".")[0], 99) < LEVEL["recipe"]:
        assert not {"langgraft.recipe", "langgraft.recipe_file", "langgraft.runs"} & set(GRAPH[dotted(path)])


def test_files_are_short() -> None:
    files = [*MODULES, *(ROOT / "tests").rglob("*.py")]
    long = {str(path.relative_to(ROOT)): n for path in files if (n := len(path.read_text("utf-8").splitlines())) > 500}
    assert long == {}


def test_init_files_are_empty() -> None:
    inits = [path for path in MODULES if path.name == "__init__.py" and path.parent != PACKAGE]
    assert inits
    assert [str(path) for path in inits if path.read_text(encoding="utf-8").strip()] == []


def test_public_names_are_sorted_and_load_nothing_heavy() -> None:
    script = (
        "import sys, langgraft\n"
        "assert 'torch' not in sys.modules\n"
        "assert langgraft.__all__ == sorted(langgraft.__all__)\n"
        "assert set(langgraft.__all__) <= set(dir(langgraft))\n"
        "assert all(callable(getattr(langgraft, name)) for name in langgraft.__all__)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def public_functions() -> Iterator[tuple[str, ast.FunctionDef | ast.ClassDef]]:
    """Functions, classes and methods without a leading underscore, outside private classes."""
    for path in MODULES:
        stack: list[tuple[str, ast.AST]] = [(dotted(path), ast.parse(path.read_text(encoding="utf-8")))]
        while stack:
            name, node = stack.pop()
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.FunctionDef | ast.ClassDef) and not child.name.startswith("_"):
                    yield f"{name}.{child.name}", child
                    if isinstance(child, ast.ClassDef):
                        stack.append((f"{name}.{child.name}", child))


def test_every_public_function_has_a_docstring() -> None:
    assert [name for name, node in public_functions() if not ast.get_docstring(node)] == []


def test_every_module_says_what_it_is() -> None:
    silent = [
        path
        for path in MODULES
        if path.read_text(encoding="utf-8").strip() and not ast.get_docstring(ast.parse(path.read_text("utf-8")))
    ]
    assert silent == []


@pytest.mark.parametrize("name", NAMES)
def test_one_word_finds_everything(name: str) -> None:
    assert section_type(Recipe.model_fields[name].annotation) is not None
    module = importlib.import_module(f"langgraft.stages.{name}")
    assert list(inspect.signature(module.run).parameters) == ["section", "inputs", "out"]
    assert (ROOT / "tests" / "stages" / f"test_{name}.py").is_file()
    assert f"\n## [{name}]\n" in (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8")


def test_every_section_is_a_stage_and_every_stage_a_section() -> None:
    sections = [name for name, info in Recipe.model_fields.items() if section_type(info.annotation) is not None]
    assert [name for name in sections if name not in ("model", "compute")] == list(NAMES)
    files = {path.stem for path in (PACKAGE / "stages").glob("*.py")} - {"__init__", "learning"}
    assert files == set(NAMES)


def test_stages_read_only_fields_there_are_and_stages_before_them() -> None:
    model = section_type(Recipe.model_fields["model"].annotation)
    assert model is not None
    for number, stage in enumerate(STAGES):
        assert set(stage.reads) <= set(model.model_fields)
        assert {name for need in stage.needs for name in need.split("|")} <= {
            earlier.name for earlier in STAGES[:number]
        }


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.toml")), ids=lambda path: path.name)
def test_shipped_recipes_load(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert all(entry.license for entry in (*recipe.corpus.target, *recipe.corpus.source))


def commands_in_readme() -> list[list[str]]:
    """The words of every `langgraft …` line in README.md's code blocks."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```.*?^```", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return [line.partition(" #")[0].split()[1:] for line in lines if line.startswith("langgraft ")]


def test_commands_and_options_named_in_the_readme_exist() -> None:
    found = commands_in_readme()
    assert found
    for words in found:
        command = words[:2] if words[0] == "tokenizer" else words[:1]
        done = langgraft(*command, "--help")
        assert done.code == 0, f"langgraft {' '.join(command)}: {done.err}"
        for option in (word.partition("=")[0] for word in words if word.startswith("-")):
            assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", done.out), (
                f"{' '.join(command)} has no {option}"
            )


def test_make_targets_named_in_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"\bmake ([a-z]+)\b", (ROOT / "README.md").read_text(encoding="utf-8")):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), f"make {target}"


@pytest.mark.parametrize("where", METHOD_TABLES)
def test_every_row_of_a_method_table_resolves_and_its_options_have_defaults(where: str) -> None:
    module, _, name = where.partition(":")
    table: dict[str, Any] = getattr(importlib.import_module(module), name)
    assert table
    for row, value in table.items():
        function = value
        if isinstance(value, str):
            inner, _, attribute = value.partition(":")
            function = getattr(importlib.import_module(inner), attribute)
        assert inspect.getdoc(function), row
        for option in inspect.signature(function).parameters.values():
            if option.kind is inspect.Parameter.KEYWORD_ONLY and option.name not in METHOD_TABLES[where]:
                assert option.default is not inspect.Parameter.empty, f"{row}: {option.name}"


def defaults_of(kind: type[Any]) -> dict[str, Any]:
    """Defaults of a section, of the sections inside it, and of the entries of its lists of sections."""
    found: dict[str, Any] = {}
    for name, info in kind.model_fields.items():
        inner = section_type(info.annotation)
        if inner is not None:
            found[name] = defaults_of(inner)
        elif not info.is_required():
            found[name] = info.get_default(call_default_factory=True)
    return found


def defaults() -> dict[str, Any]:
    """Version and defaults of every stage, as the golden file holds them."""
    found = {}
    for stage in STAGES:
        kind = section_type(Recipe.model_fields[stage.name].annotation)
        assert kind is not None
        found[stage.name] = {"version": stage.version, "defaults": defaults_of(kind)}
    return found


def test_a_default_changes_only_with_the_stages_version() -> None:
    """Fingerprints leave defaults out, so a changed default must raise the stage's version.

    After raising it, write the golden file anew with `python tests/test_house.py`.
    """
    golden, now = json.loads(GOLDEN.read_text(encoding="utf-8")), json.loads(json.dumps(defaults()))
    for name, entry in now.items():
        known = golden[name]["defaults"]
        changed = [key for key in known if entry["defaults"].get(key, "gone") != known[key]]
        if changed:
            assert entry["version"] > golden[name]["version"], f"{name}: {changed} changed without a new version"
    assert now == golden, "write the golden file anew: python tests/test_house.py"


def test_the_page_of_the_recipe_is_current() -> None:
    script = "import sys; sys.path.insert(0, 'docs'); import generate; sys.stdout.write(generate.page())"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, encoding="utf-8", check=False,
        env={"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8") == done.stdout, "run python docs/generate.py"


def test_every_field_of_the_recipe_is_explained() -> None:
    def silent(kind: type[Any], prefix: str) -> Iterator[str]:
        for name, info in kind.model_fields.items():
            inner = section_type(info.annotation)
            if inner is not None:
                yield from silent(inner, f"{prefix}{name}.")
            elif not info.description:
                yield f"{prefix}{name}"

    assert list(silent(Recipe, "")) == []


def test_tests_named_in_the_features_table_exist() -> None:
    named = re.findall(r"`(tests/[^`]+)`", (ROOT / "docs" / "features.md").read_text(encoding="utf-8"))
    assert named
    assert [path for path in named if not (ROOT / path).is_file()] == []


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(defaults(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
