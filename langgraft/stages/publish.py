"""publish: the exported model and the cards on the Hugging Face hub, or the list of what would go there."""

from pathlib import Path
from typing import Any

from langgraft.errors import LanggraftError, ModelError, RecipeError
from langgraft.exporting.licenses import check_choice, model_license
from langgraft.exporting.publish import (
    CARD,
    Publication,
    access_token,
    check_repository,
    license_in,
    plan_data_card,
    plan_publication,
    publish,
    source_of,
)
from langgraft.recipe import Publish, Recipe
from langgraft.runs import Inputs
from langgraft.store import atomic_write, fingerprint, read_json, write_json

LISTED, UPLOADED = "publication.json", "uploaded.json"


def check(section: Publish, recipe: Recipe) -> None:
    """Say before anything runs what cannot be published.

    Raises:
        RecipeError: no hub folder is exported, a repository's name is wrong, or licences that are known already
            conflict or do not suffice.
        LanggraftError: it is to be uploaded, and there is no token, or the hub is switched off.
    """
    if recipe.export is None or "hf" not in recipe.export.to:
        raise RecipeError('[publish] takes the exported hub folder; add "hf" to export.to')
    try:
        check_repository(section.model, "publish.model")
        if section.data is not None:
            check_repository(section.data, "publish.data")
        if not section.force:
            _check_licenses(section, recipe)
    except ModelError as error:
        raise RecipeError(f"[publish]: {error}") from error
    if not section.dry_run:
        try:
            access_token()
        except LanggraftError as error:
            raise LanggraftError(f"publish.dry_run is false, and {error}") from error


def _check_licenses(section: Publish, recipe: Recipe) -> None:
    """Texts may name others, row by row: these are seen when the corpus is there."""
    texts = [entry.license for entry in (*recipe.corpus.target, *recipe.corpus.source) if entry.license]
    base = section.base_license or license_in(Path(recipe.model.base).expanduser())
    if section.license is not None:
        check_choice(section.license, base, texts)
    else:
        model_license(base, texts)


def run(section: Publish, inputs: Inputs, out: Path) -> dict[str, Any]:
    """Write the list of what goes and the model card; upload unless it is a dry run.

    The run's own report is published, so it is written before (`pipeline.run`). What was uploaded is written down at
    once: after a failure the same command goes on with what is left, and sends no large file a second time.

    Raises:
        GateError: a gate of the run failed, or the exported folder is not as it was exported.
        ModelError: licences conflict or are unknown.
        LanggraftError: the hub refuses, or cannot be reached.
    """
    source = source_of(out.parent)
    model = plan_publication(
        source, section.model, private=section.private, data_to=section.data, license_=section.license,
        base_license=section.base_license, force=section.force,
    )  # fmt: skip
    wanted = [model]
    if section.data is not None:
        wanted.append(plan_data_card(source, section.data, private=section.private))
    write_json(out / LISTED, [one.as_dict() for one in wanted])
    atomic_write(out / CARD, bytes(model.files[CARD]).decode("utf-8"))
    inputs.log.say(f"publish: licence {model.license}: {model.why}")
    return {"dry_run": section.dry_run, "publications": [_publish(one, section, inputs, out) for one in wanted]}


def _publish(publication: Publication, section: Publish, inputs: Inputs, out: Path) -> dict[str, Any]:
    facts = publication.as_dict()
    files = facts.pop("files")
    name, size = publication.repository, sum(file["bytes"] for file in files)
    shown = f"{len(files)} files, {size:,} bytes"
    url = None
    if section.dry_run:
        inputs.log.say(f"publish: dry run, nothing was uploaded; to {name} would go {shown}: {out / LISTED}")
    else:
        key, done = fingerprint(publication.as_dict()), _uploaded(out)
        if key not in done:
            inputs.log.say(f"publish: uploading to {name}: {shown}")
            write_json(out / UPLOADED, {**done, key: publish(publication)})
        url = _uploaded(out)[key]
        inputs.log.say(f"publish: {url}")
    return {**facts, "files": len(files), "bytes": size, "url": url}


def _uploaded(out: Path) -> dict[str, str]:
    """What an earlier start uploaded: a hash of the list of files -> its address."""
    path = out / UPLOADED
    found: dict[str, str] = read_json(path) if path.is_file() else {}
    return found
