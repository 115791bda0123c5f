"""What a stage reads from outside the run, by its content: base, files of text, functions of the user's own."""

import importlib.util
import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from langgraft.base import Base, identity, locate
from langgraft.corpus.document import Input
from langgraft.corpus.langid_model import check_file
from langgraft.corpus.sources import resolve, with_companions
from langgraft.errors import ModelError, RecipeError
from langgraft.recipe import Align, Evaluate, Filters, Recipe, Surgery
from langgraft.recipe_sft import Sft
from langgraft.runs import as_input
from langgraft.store import atomic_write, sha256_file

IDENTITIES = ".identities.json"


class Identities:
    """Hashes of external files, remembered by path, size and time of change so that planning stays fast."""

    def __init__(self, root: Path) -> None:
        self.path = root / IDENTITIES
        self.known: dict[str, list[Any]] = {}
        if self.path.is_file():
            try:
                known = json.loads(self.path.read_text(encoding="utf-8"))
            except ValueError:
                known = {}  # only a cache: hash again
            self.known = known if isinstance(known, dict) else {}
        self.changed = False

    def __call__(self, path: Path) -> str:
        facts = path.stat()
        key = str(path.resolve())
        remembered = self.known.get(key)
        if remembered is None or remembered[:2] != [facts.st_size, facts.st_mtime_ns]:
            remembered = [facts.st_size, facts.st_mtime_ns, sha256_file(path)]
            self.known[key] = remembered
            self.changed = True
        return str(remembered[2])

    def save(self) -> None:
        """Write what was hashed anew."""
        if self.changed and self.path.parent.is_dir():
            atomic_write(self.path, json.dumps(self.known))


def external(stage: str, reads: Collection[str], recipe: Recipe, base: Base, identities: Identities) -> dict[str, Any]:
    """Content of what comes from outside the run: the base, and files of text."""
    found: dict[str, Any] = {}
    if "base" in reads:
        found["model.base"] = identity(base, identities)
    if stage == "corpus":
        for side in ("target", "source"):
            for entry in getattr(recipe.corpus, side):
                files = with_companions(resolve(as_input(entry)))
                # Names are left out: where a file lies is not what it holds.
                found[f"corpus.{side} {entry.path}"] = [identities(path) for path in files]
        for name in recipe.corpus.decontaminate:
            found[f"corpus.decontaminate {name}"] = [identities(path) for path in resolve(Input(name))]
        if recipe.corpus.langid_model is not None:
            check_file(Path(recipe.corpus.langid_model))
            found["corpus.langid_model"] = identities(Path(recipe.corpus.langid_model))
        found.update(_filter_files(recipe.corpus.filters, identities))
    if stage == "tokenizer" and recipe.tokenizer.method == "merge":
        found["tokenizer.donor"] = _donor(recipe.tokenizer.donor, identities)
    if stage == "align" and recipe.align is not None:
        found.update(_align_files(recipe.align, evaluation_sets(recipe), identities))
    if stage == "sft" and recipe.sft is not None:
        found.update(_chat_files(recipe.sft, identities))
    if stage == "evaluate" and recipe.evaluate is not None:
        found.update(_evaluate_files(recipe.evaluate, identities))
    if stage == "surgery":
        found.update(_surgery_files(recipe.surgery, identities))
    return found


def _filter_files(section: Filters, identities: Identities) -> dict[str, Any]:
    """Content of what the filters' bounds come from."""
    found: dict[str, Any] = {}
    for entry in section.reference:
        files = resolve(as_input(entry))
        found[f"corpus.filters.reference {entry.path}"] = [identities(path) for path in files]
    if section.fineweb is not None:
        if not Path(section.fineweb).is_file():
            raise RecipeError(f"corpus.filters.fineweb: {section.fineweb} does not exist")
        found["corpus.filters.fineweb"] = identities(Path(section.fineweb))
    return found


def evaluation_sets(recipe: Recipe) -> list[str]:
    """Paths of all that the recipe measures on, or keeps its corpus apart from, beside the corpus's own splits."""
    measured = _sets(recipe.evaluate) if recipe.evaluate is not None else []
    return list(dict.fromkeys([*recipe.corpus.decontaminate, *measured]))


def _sets(section: Evaluate) -> list[str]:
    sets = [one.path for one in section.classification.values()]
    sets += [one.path for one in section.summarisation.values()]
    parallel = [*section.choice.parallel, *section.translation.parallel]
    return [*parallel, *section.minimal_pairs, *section.code_mixed, *sets]


def _align_files(section: Align, held_out: Sequence[str], identities: Identities) -> dict[str, Any]:
    """Content of parallel text, of what it is kept apart from, and of formats of the user's own."""
    found: dict[str, Any] = {}
    for entry in section.parallel:
        found[f"align.parallel {entry.path}"] = [identities(path) for path in resolve(as_input(entry))]
    for name in held_out:
        found[f"align.held_out {name}"] = [identities(path) for path in resolve(Input(name))]
    for name in section.formats:
        if ":" in name:
            found[f"align.formats {name}"] = identities(_module_file(name, "align.formats"))
    return found


def _chat_files(section: Sft, identities: Identities) -> dict[str, Any]:
    """Content of the conversations, and of a chat template of the user's own."""
    found: dict[str, Any] = {
        f"sft.data {entry.path}": [identities(path) for path in resolve(Input(entry.path))] for entry in section.data
    }
    if section.template is not None:
        if not Path(section.template).is_file():
            raise RecipeError(f"sft.template: {section.template} does not exist; give a file with a Jinja template")
        found["sft.template"] = identities(Path(section.template))
    return found


def _evaluate_files(section: Evaluate, identities: Identities) -> dict[str, Any]:
    """Content of the files that the evaluation asks from."""
    paths = _sets(section)
    found: dict[str, Any] = {f"evaluate {path}": [identities(file) for file in resolve(Input(path))] for path in paths}
    if section.prompts.file is not None:
        if not Path(section.prompts.file).is_file():
            raise RecipeError(f"evaluate.prompts.file: {section.prompts.file} does not exist")
        found["evaluate.prompts.file"] = identities(Path(section.prompts.file))
    return found


def _surgery_files(section: Surgery, identities: Identities) -> dict[str, Any]:
    """Content of the functions of the user's own, donors and dictionaries that surgery uses."""
    found: dict[str, Any] = {}
    auto = section.init == "auto"
    for init in section.probe.candidates if auto else [section.init]:
        field = "surgery.probe.candidates" if auto else "surgery.init"
        if ":" in init:
            found[field if not auto else f"{field} {init}"] = identities(_module_file(init, field))
        options = section.options.get(init, {}) if auto else section.options
        for option, files in (("path", [""]), ("donor", ["tokenizer.json", "config.json"])):
            where = options.get(option) if isinstance(options, dict) and init in ("dictionary", "omp") else None
            if where is None:
                continue
            paths = [Path(where) / file for file in files]
            if option == "donor":
                paths += sorted(Path(where).glob("*.safetensors"))
            absent = next((path for path in paths if not path.is_file()), None)
            if absent is not None:
                raise RecipeError(f"surgery.options of `{init}`: {absent} does not exist")
            found[f"surgery.options {init}.{option}"] = [identities(path) for path in paths]
    return found


def _module_file(function: str, field: str) -> Path:
    """The file of a user's own `module:function`."""
    name = function.split(":")[0]
    try:
        module = importlib.util.find_spec(name)
    except (ModuleNotFoundError, ValueError):
        module = None
    if module is None or not module.origin or not Path(module.origin).is_file():
        raise RecipeError(
            f"{field} `{function}`: there is no module `{name}` on the Python path; "
            "start the command in the folder that holds it"
        )
    return Path(module.origin)


def _donor(name: str | None, identities: Callable[[Path], str]) -> Any:
    """What a fingerprint records of a donor tokenizer: a folder's tokenizer.json, else what it records of a base."""
    if name is None:
        raise RecipeError("tokenizer.donor is not set; method `merge` needs a donor tokenizer")
    file = Path(name).expanduser() / "tokenizer.json"
    if file.is_file():
        return identities(file)
    try:
        return identity(locate(name), identities)
    except ModelError as error:
        raise RecipeError(f"tokenizer.donor: {error}") from error
