"""`langgraft publish`: a model on the Hugging Face hub."""

from pathlib import Path
from typing import Annotated

import typer

from langgraft.cli_options import Json, say, show_json


def publish(
    model: Annotated[Path, typer.Argument(help="Run folder, or what `langgraft export` wrote.")],
    to: Annotated[str, typer.Option(help="owner/name on the hub.")],
    private: Annotated[bool, typer.Option("--private", help="Only the owner sees it.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would go, and upload nothing.")] = False,
    data: Annotated[Path | None, typer.Option(help="Prepared corpus whose data card goes along; the run's.")] = None,
    data_to: Annotated[
        str | None, typer.Option(help="owner/name of a data set's repository for the data card, besides.")
    ] = None,
    license_: Annotated[
        str | None, typer.Option("--license", help="Licence of the model; by default from base and text.")
    ] = None,
    base_license: Annotated[str | None, typer.Option(help="Licence of the base, where no file says it.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Although a gate failed or licences conflict.")] = False,
    as_json: Json = False,
) -> None:
    """Put model, tokenizer and cards on the Hugging Face hub, if every gate passed and the licences allow it."""
    from langgraft.exporting.publish import plan_data_card, plan_publication, source_of
    from langgraft.exporting.publish import publish as upload

    source = source_of(model)
    wanted = [
        plan_publication(
            source, to, private=private, data=data, data_to=data_to, license_=license_, base_license=base_license,
            force=force,
        )
    ]  # fmt: skip
    if data_to is not None:
        wanted.append(plan_data_card(source, data_to, private=private, data=data))
    done = [{**publication.as_dict(), "url": None} for publication in wanted]
    for publication, facts in zip(wanted, done, strict=True):
        for entry in facts["files"]:
            say(f"{entry['bytes']:>13,}  {entry['sha256'][:16]}  {entry['name']}")
        say(f"licence {publication.license}: {publication.why}")
        if dry_run:
            say(f"dry run: nothing was uploaded to {publication.repository}")
        else:
            facts["url"] = upload(publication)
            say(f"published {facts['url']}")
    if as_json:
        show_json({**done[0], "dry_run": dry_run, "data": done[1] if data_to else None})


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(publish)
