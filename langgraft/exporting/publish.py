"""An exported folder and a data card on the Hugging Face hub: what would go, whether it may, and the upload."""

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from langgraft.corpus.card import hub_license
from langgraft.errors import GateError, LanggraftError, ModelError
from langgraft.exporting.card import model_card
from langgraft.exporting.folder_gates import folder_gates, is_hub_folder
from langgraft.exporting.licenses import check_choice, model_license
from langgraft.exporting.manifest import MANIFEST, inventory, manifest_gates, read_manifest
from langgraft.store import read_json, sha256_file

CARD = "README.md"
OFFLINE = "the hub is switched off by HF_HUB_OFFLINE; unset it to publish"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_TOKEN = re.compile(r"hf_[A-Za-z0-9_-]{4,}")


@dataclass(frozen=True)
class Source:
    """What is published: an exported folder, and what is known of how it was made.

    `gates` are those of the run, beside the folder's own; `data` is card.json of the text it learned from.
    """

    folder: Path
    gates: list[dict[str, Any]] = field(default_factory=list)
    base: str = ""
    language: tuple[str, ...] = ()
    data: Path | None = None
    pairs: tuple[str, ...] = ()  # licences of parallel text and conversations, which are not in `data`


@dataclass(frozen=True)
class Publication:
    """What would go to the hub: `files[name]` is a path, or the bytes themselves."""

    repository: str
    private: bool
    license: str
    why: str
    files: dict[str, Path | bytes]
    kind: Literal["model", "dataset"] = "model"

    def listed(self) -> list[dict[str, Any]]:
        """`name, bytes, sha256` of every file, in the order of their names."""
        return [{"name": name, **_sums(self.files[name])} for name in sorted(self.files)]

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        facts = {key: getattr(self, key) for key in ("repository", "kind", "private", "license", "why")}
        return {**facts, "files": self.listed()}


def _sums(content: Path | bytes) -> dict[str, Any]:
    if isinstance(content, bytes):
        return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return {"bytes": content.stat().st_size, "sha256": sha256_file(content)}


def source_of(path: Path) -> Source:
    """A run folder (its exported hub folder, gates, base and text), or an exported folder by itself.

    Raises:
        ModelError: it is neither, or the run exported no hub folder.
    """
    path = Path(path)
    if (path / MANIFEST).is_file() or (path / "config.json").is_file():
        return Source(path)
    if not (path / "report.json").is_file():
        raise ModelError(f"{path} is neither a run (report.json) nor an exported folder ({MANIFEST})")
    report = read_json(path / "report.json")
    folders = {stage["name"]: path / stage["folder"] for stage in report.get("stages", [])}
    exported = folders.get("export")
    if exported is None or not (exported / "hf").is_dir():
        raise ModelError(f'{path} exported no hub folder; add `to = ["hf"]` to [export] and run it again')
    card = folders["corpus"] / "text" if "corpus" in folders else None
    codes = tuple(code for key in ("language", "source_language") if (code := (report.get(key) or {}).get("code")))
    pairs = (report.get("align") or {}).get("pairs") or {}
    chats = [entry.get("license") or "" for entry in (report.get("sft") or {}).get("data") or []]
    found = tuple(sorted({hub_license(name) for name in (*(pairs.get("licenses") or {}), *chats)}))
    return Source(exported / "hf", report.get("gates", []), str(report.get("base") or ""), codes, card, found)


def plan_publication(
    source: Source,
    to: str,
    *,
    private: bool = False,
    data: Path | None = None,
    data_to: str | None = None,
    license_: str | None = None,
    base_license: str | None = None,
    force: bool = False,
) -> Publication:
    """Everything that would be uploaded, after every check that needs no network.

    Args:
        to: `owner/name` on the hub.
        data: folder of a prepared corpus, whose data card goes along as `data/`; by default the run's.
        data_to: `owner/name` of the data card's own repository (`plan_data_card`), which the model card then names.
        license_: licence of the model, where the one that follows from base and text is not wanted.
        base_license: licence of the base, where no file says it.
        force: publish although a gate failed or licences conflict.

    Raises:
        GateError: a gate failed, or the folder is not as it was exported.
        ModelError: licences conflict or are unknown, the name is wrong, or the card is no valid one.
    """
    check_repository(to, "--to")
    if not force:
        _check_gates(source)
    folder = data or source.data
    facts = _data_facts(folder) if folder else None
    texts = sorted({*(facts["licenses"] if facts else []), *source.pairs})
    base = base_license or _base_license(source)
    name, why = _license(base, texts, license_, known=facts is not None, force=force)
    listed = read_manifest(source.folder)["files"] if (source.folder / MANIFEST).is_file() else inventory(source.folder)
    files: dict[str, Path | bytes] = {key: source.folder / key for key in listed}
    if (source.folder / MANIFEST).is_file():
        files[MANIFEST] = source.folder / MANIFEST
    files[CARD] = _card(source, to, name, data_to).encode("utf-8")
    if folder:
        files |= {f"data/{key}": folder / key for key in (CARD, "card.json") if (folder / key).is_file()}
    return Publication(to, private, name, why, files)


def check_repository(name: str, option: str) -> None:
    """Check the name of a repository, which `option` gave.

    Raises:
        ModelError: it is no `owner/name`.
    """
    if not _REPOSITORY.fullmatch(name):
        raise ModelError(f"{option} {name} must be owner/name, as on the hub")


def plan_data_card(source: Source, to: str, *, private: bool = False, data: Path | None = None) -> Publication:
    """The data card of the text, as a data set's repository of its own; the text stays here.

    Args:
        to: `owner/name` on the hub.
        data: folder of a prepared corpus; by default the run's.

    Raises:
        ModelError: there is no data card, its metadata cannot be read, or the name is wrong.
    """
    check_repository(to, "--data-to")
    folder = data or source.data
    if folder is None or not (folder / CARD).is_file():
        raise ModelError(f"--data-to {to}: there is no data card; give what `langgraft corpus` wrote with --data")
    names = _data_facts(folder)["licenses"]
    card = _read_card(folder / CARD)
    # The hub would look for the files that they name, and they are not there.
    facts: Any = card.data
    facts.configs = None
    files: dict[str, Path | bytes] = {CARD: str(card).encode("utf-8"), "card.json": folder / "card.json"}
    return Publication(to, private, ", ".join(names), "the text's, source by source", files, "dataset")


def _check_gates(source: Source) -> None:
    gates = [*source.gates]
    try:
        gates += read_manifest(source.folder)["gates"] + manifest_gates(source.folder)
        whole = all(gate["passed"] for gate in gates[-1:])
        gates += folder_gates(source.folder) if whole and is_hub_folder(source.folder) else []
    except ModelError as error:
        raise GateError(f"{error}; --force publishes all the same") from error
    failed = [f"{gate['name']} ({gate['value']})" for gate in gates if gate["passed"] is False]
    if failed:
        raise GateError(f"not published, since a gate failed: {'; '.join(failed)}; --force publishes all the same")


def _data_facts(folder: Path) -> dict[str, Any]:
    path = folder / "card.json"
    if not path.is_file():
        raise ModelError(f"{folder} has no card.json; `langgraft corpus` writes one beside the text it prepares")
    facts: dict[str, Any] = read_json(path)
    return facts


def _license(base: str, texts: Sequence[str], choice: str | None, *, known: bool, force: bool) -> tuple[str, str]:
    if choice is not None:
        if not force:
            check_choice(choice, base, texts)
        return choice, "named by --license"
    if not known:
        raise ModelError(
            "nothing is known of the text that the model learned from; give its folder with --data (what `langgraft "
            "corpus` wrote), or the licence with --license"
        )
    return model_license(base, texts)


def _base_license(source: Source) -> str:
    """The licence that the base's folder or the exported card names; empty where none does."""
    return (license_in(Path(source.base).expanduser()) if source.base else "") or license_in(source.folder)


def license_in(folder: Path) -> str:
    """The licence that a model folder's card or licence file names; empty where none does, or there is no folder.

    Raises:
        ModelError: the card's metadata cannot be read.
    """
    card = folder / CARD
    found = _front_matter(card).get("license") if card.is_file() else None
    if isinstance(found, str):
        return found
    for name in ("LICENSE", "LICENSE.txt", "LICENSE.md"):
        text = (folder / name).read_text(encoding="utf-8", errors="replace") if (folder / name).is_file() else ""
        if "Apache License" in text[:300]:
            return "apache-2.0"
        if "MIT License" in text[:300]:
            return "mit"
    return ""


def _front_matter(path: Path) -> Mapping[str, Any]:
    found: Mapping[str, Any] = _read_card(path, path.read_text(encoding="utf-8"), strict=False).data.to_dict()
    return found


def _read_card(path: Path, text: str | None = None, *, strict: bool = True) -> Any:
    """huggingface_hub's ModelCard of a file, or of the `text` that is to stand there.

    Raises:
        ModelError: its metadata cannot be read.
    """
    from huggingface_hub import ModelCard
    from yaml import YAMLError

    try:
        return ModelCard(text or path.read_text(encoding="utf-8"), ignore_metadata_errors=not strict)
    except (ValueError, YAMLError) as error:
        raise ModelError(f"{path}: its front matter is no valid metadata ({error}); correct it") from error


def _card(source: Source, to: str, license_: str, data_to: str | None) -> str:
    """The folder's card, or a new one, with the licence, and base and languages where they are missing.

    Raises:
        ModelError: its metadata cannot be read.
    """
    path = source.folder / CARD
    if path.is_file():
        text = path.read_text(encoding="utf-8")
    elif is_hub_folder(source.folder):
        text = model_card(source.folder, {"name": to.partition("/")[2]})
    else:
        kind = read_manifest(source.folder)["format"] if (source.folder / MANIFEST).is_file() else "gguf"
        library = {"adapter": "peft", "ollama": "gguf"}.get(kind, kind)
        text = f"---\nlibrary_name: {library}\ntags:\n- langgraft\n- {kind}\n---\n\n# {to.partition('/')[2]}\n"
    card = _read_card(path, text)
    facts: Any = card.data
    facts.license = license_
    if license_ == "other" and not getattr(facts, "license_name", None):
        facts.license_name = "see-card"
    if source.language and not facts.language:
        facts.language = list(source.language)
    if _REPOSITORY.fullmatch(source.base) and not Path(source.base).exists() and not facts.base_model:
        facts.base_model = source.base
    if data_to and not facts.datasets:
        facts.datasets = [data_to]
    return str(card)


def publish(publication: Publication) -> str:
    """Upload in one commit; creates the repository where there is none. Returns its address.

    The token is the one that `hf auth login` stored, or HF_TOKEN; it appears in no message.

    Raises:
        LanggraftError: not logged in, the hub refuses, or it cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, ModelCard
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    token, api, kind = access_token(), HfApi(), publication.kind
    card = publication.files[CARD]
    assert isinstance(card, bytes)
    operations = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=content if isinstance(content, bytes) else str(content))
        for name, content in sorted(publication.files.items())
    ]
    try:
        _validate(ModelCard(card.decode("utf-8")), kind, token)
        api.create_repo(publication.repository, private=publication.private, exist_ok=True, repo_type=kind)
        api.create_commit(publication.repository, operations, commit_message="Upload with langgraft", repo_type=kind)
    except OfflineModeIsEnabled as error:
        raise LanggraftError(OFFLINE) from error
    except HfHubHTTPError as error:
        raise LanggraftError(f"the hub refused {publication.repository}: {without_token(str(error), token)}") from None
    except LanggraftError:
        raise
    except Exception as error:
        # The client's transport, and so the class of its errors, changes with its version; no traceback of any of
        # them may show the request's headers.
        reason = without_token(str(error) or type(error).__name__, token)
        raise LanggraftError(f"the hub at {api.endpoint} cannot be reached: {reason}") from None
    return f"{api.endpoint}/{'datasets/' if kind == 'dataset' else ''}{publication.repository}"


def _validate(card: Any, kind: str, token: str) -> None:
    try:
        card.validate(repo_type=kind)
    except ValueError as error:
        raise ModelError(f"the hub finds the card invalid: {without_token(str(error), token)}") from None


def access_token() -> str:
    """The hub's token, which `hf auth login` stored, or HF_TOKEN.

    Raises:
        LanggraftError: there is none, or HF_HUB_OFFLINE is set.
    """
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise LanggraftError(OFFLINE)
    token = get_token()
    if token is None:
        raise LanggraftError("not logged in to the hub; run `hf auth login`, or set HF_TOKEN")
    return token


def without_token(text: str, token: str | None = None) -> str:
    """A message on one line, with every access token taken out: the one in use, and whatever looks like one."""
    for secret in (token, os.environ.get("HF_TOKEN")):
        if secret:
            text = text.replace(secret, "[token]")
    return _TOKEN.sub("[token]", " ".join(text.split()))
