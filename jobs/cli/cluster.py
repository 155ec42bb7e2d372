"""The verb that runs other verbs on a cluster: submit."""

from typing import Annotated, Literal

import typer

from jobs.cli.options import command, print_document
from models.refusal import Refusal

verbs = typer.Typer()


@command(
    verbs,
    "submit nightly specs/flows.yaml --address https://head:8265",
    "submit --attach JOB --address https://head:8265",
    statuses={
        75: "the head was gone for two minutes, or the cluster failed the job: run the same "
        "command to resume",
        130: "Ctrl-C: the job runs on",
        143: "the job was cancelled",
    },
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": True},
)
def submit(
    context: typer.Context,
    arguments: Annotated[
        list[str] | None, typer.Argument(help="A verb and its arguments.", metavar="VERB …")
    ] = None,
    address: Annotated[
        str, typer.Option(help="Dashboard of the cluster.", metavar="http://HEAD:8265")
    ] = "http://127.0.0.1:8265",
    environment: Annotated[
        Literal["image", "lock"],
        typer.Option(
            help="image: every node has the packages of requirements.lock, as infra/image does; "
            "this is checked. lock: every node copies its own environment (2.5 GB, 20 s) and "
            "installs the missing packages with pip; torch comes as the CUDA build of PyPI. Later "
            "jobs reuse the copy. lock needs PyPI and room in /tmp."
        ),
    ] = "image",
    env: Annotated[
        list[str] | None,
        typer.Option(
            help="Name of an environment variable to send along. Others can read its value: send "
            "no secrets."
        ),
    ] = None,
    attach: Annotated[str | None, typer.Option(help="Follow the job of this id.")] = None,
    cancel: Annotated[str | None, typer.Option(help="End the job of this id.")] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print the verb's result as JSON; of --cancel, how it ended."),
    ] = False,
) -> None:
    """Run a verb on a Ray cluster.

    Sends the checkout and the spec, starts the job and follows it until it ends. If the same
    command runs already, it is followed instead. The results of the verb go to stdout, its log to
    stderr. The exit status is the verb's.
    """
    if [bool(arguments), attach is not None, cancel is not None].count(True) != 1:
        raise Refusal("expected one of: a verb and its arguments, --attach ID, --cancel ID")
    from jobs.remote import remote_verb as job

    if attach is not None:
        raise typer.Exit(job.attach(address, attach))
    if cancel is not None:
        status = job.cancel(address, cancel)
        if as_json:
            print_document({"job": cancel, "status": status})
        return
    sent = [*(arguments or []), *(["--json"] if as_json else [])]
    assert context.parent is not None
    group = context.parent.command
    assert isinstance(group, typer.core.TyperGroup)
    raise typer.Exit(job.submit(address, sent, group.commands, environment, env or ()))
