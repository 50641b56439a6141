"""The command tree. Commands live in modules of their own, which are imported here without anything heavy."""

from __future__ import annotations

from typing import Annotated

import typer

from reconciler.cli import applying, context, get, output, plans, process

app = typer.Typer(
    name="vectl",
    help="A GitOps reconciler for Linux system containers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def options(  # one for each global option
    config: Annotated[str | None, typer.Option("--config", help="Configuration file.", metavar="FILE")] = None,
    instance: Annotated[str | None, typer.Option(help="Instance on this machine.", metavar="NAME")] = None,
    state_dir: Annotated[str | None, typer.Option(help="Where durable state is kept.", metavar="DIR")] = None,
    run_dir: Annotated[str | None, typer.Option(help="Where volatile state is kept.", metavar="DIR")] = None,
    host: Annotated[str | None, typer.Option(help="This host's name in manifests.", metavar="NAME")] = None,
    color: Annotated[bool | None, typer.Option("--color/--no-color", help="Colours; default: on a terminal.")] = None,
) -> None:
    """Take the options before the command."""
    given = context.Globals(config_file=config, instance=instance, state_dir=state_dir, run_dir=run_dir, host=host)
    context.give(given)
    output.choose_color(color)


for command in (plans.validate, plans.plan, plans.diff, applying.apply, process.agent, process.down, get.get):
    app.command()(command)
