"""The command tree. Commands live in modules of their own, which are imported here without anything heavy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import (
    adopt,
    applying,
    approve,
    audit,
    beancounters,
    capacity,
    confirm,
    context,
    describe,
    doctor,
    down,
    events,
    export,
    get,
    hook,
    host,
    importing,
    inside,
    learn,
    logs,
    manual,
    operate,
    output,
    place,
    plans,
    process,
    quota,
    setting,
    snapshot,
    source,
    template,
    trash,
    version,
    waiting,
)

if TYPE_CHECKING:
    from typer.core import TyperGroup

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


_COMMANDS: Mapping[str, Callable[..., int]] = {
    "validate": plans.validate,
    "plan": plans.plan,
    "diff": plans.diff,
    "apply": applying.apply,
    "approve": approve.approve,
    "confirm": confirm.confirm,
    "set": setting.set_fields,
    "place": place.place,
    "agent": process.agent,
    "down": down.down,
    "get": get.get,
    "describe": describe.describe,
    "events": events.events,
    "audit": audit.audit,
    "logs": logs.logs,
    "exec": inside.execute,
    "enter": inside.enter,
    "start": operate.start,
    "stop": operate.stop,
    "restart": operate.restart,
    "wait": waiting.wait,
    "pause": operate.pause,
    "unpause": operate.unpause,
    "protect": operate.protect,
    "unprotect": operate.unprotect,
    "forget": operate.forget,
    "beancounters": beancounters.beancounters,
    "capacity": capacity.capacity,
    "quota": quota.quota,
    "observe": export.observe,
    "export": export.export,
    "adopt": adopt.adopt,
    "doctor": doctor.doctor,
    "explain": learn.explain,
    "schema": learn.schema,
    "completion": learn.completion,
    "version": version.show,
}
for name, command in _COMMANDS.items():
    app.command(name)(command)
app.command("man", hidden=True)(manual.man)
app.add_typer(importing.app, name="import")
app.add_typer(hook.app, name="hook")
app.add_typer(host.app, name="host")
app.add_typer(snapshot.app, name="snapshot")
app.add_typer(source.app, name="source")
app.add_typer(template.app, name="template")
app.add_typer(trash.app, name="trash")


def tree() -> TyperGroup:
    """Give the command tree in the parser's form, for completion and the manual page."""
    from typer.core import TyperGroup
    from typer.main import get_command

    root = get_command(app)
    assert isinstance(root, TyperGroup)
    return root
