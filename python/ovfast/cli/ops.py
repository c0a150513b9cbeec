"""`ovfast ops`: operations of ovfast and of your own, on CPU and GPU."""

from __future__ import annotations

import json
from pathlib import Path

import click

__all__ = ["ops_command"]


@click.group("ops")
def ops_command() -> None:
    """List, begin and check custom operations for CPU and GPU.

    \b
    Examples:
      ovfast ops list
      ovfast ops new SoftClip
      ovfast ops test SoftClip --device GPU
    """


@ops_command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def list_command(as_json: bool) -> None:
    """List ovfast's operations, and whether they have a kernel for GPUs."""
    from ovfast.kernels import read_kernels
    from ovfast.ops import kernel_config, operations

    kernels = {layer.operation: layer for layer in read_kernels(kernel_config())}
    rows = [
        {"name": name, "devices": ["CPU", "GPU"] if name in kernels else ["CPU"]}
        for name in operations()
    ]
    if as_json:
        click.echo(json.dumps({"operations": rows, "kernels": str(kernel_config())}))
        return
    width = max(len(str(row["name"])) for row in rows)
    for row in rows:
        click.echo(f"{row['name']:<{width}}  {', '.join(row['devices'])}")


@ops_command.command("new")
@click.argument("name")
@click.option(
    "-o",
    "--output",
    "directory",
    type=click.Path(path_type=Path),
    help="The folder to make; by default the operation's name.",
)
def new_command(name: str, directory: Path | None) -> None:
    """Write a folder with an operation NAME to begin with: class, kernel, XML, build, check.

    It is a whole elementwise activation, x / (1 + alpha |x|), that passes `ovfast ops test` as it
    is. Nothing that is there is overwritten.
    """
    from ovfast.scaffold import new_operation

    made = new_operation(name, directory or Path(name))
    for path in sorted(made.iterdir()):
        click.echo(path)
    click.echo(f"Next: ovfast ops test {made} --device CPU")


@ops_command.command("test")
@click.argument("name")
@click.option("--device", default="CPU", show_default=True, help="CPU, GPU or GPU.1.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def test_command(ctx: click.Context, name: str, device: str, as_json: bool) -> None:
    """Check the operation NAME on a device: one of ovfast's, all, or a folder of `ovfast ops new`.

    A folder is built first. The operation runs in f32 and f16, with static and dynamic shapes, and
    is compared with NumPy; on a GPU its kernel is compiled alone first, which gives the compiler's
    messages. The exit code is 1 when something is wrong.
    """
    from ovfast.gpu import OPERATIONS, check
    from ovfast.ops import operations
    from ovfast.scaffold import check_folder

    known = [operation.name for operation in OPERATIONS]
    if Path(name).is_dir():
        results = [check_folder(Path(name), device)]
    elif name in ("all", *known):
        results = check(device, known if name == "all" else [name])
    else:
        what = (
            "runs on the CPU alone" if name in operations() else "is neither folder nor operation"
        )
        raise click.UsageError(
            f"'{name}' {what}; expected a folder, all, or one of {', '.join(known)}"
        )
    if as_json:
        click.echo(json.dumps({"device": device, "results": [vars(one) for one in results]}))
    else:
        for one in results:
            verdict = click.style(
                "ok" if one.passed else "FAULT", fg="green" if one.passed else "red"
            )
            click.echo(f"{verdict} {one.operation} ({one.seconds:.1f} s): {one.summary}")
    ctx.exit(0 if all(one.passed for one in results) else 1)
