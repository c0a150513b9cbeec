"""`ovfast doctor`: what works here, and how to mend what does not."""

from __future__ import annotations

import json

import click

from ovfast.doctor import Status, diagnose

__all__ = ["doctor_command"]

_COLOURS: dict[Status, str] = {"ok": "green", "warning": "yellow", "fault": "red"}


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def doctor_command(ctx: click.Context, as_json: bool) -> None:
    """Check versions, OpenVINO, devices, threads, memory and the cache.

    Each fault comes with its fix. The exit code is 1 when something is broken.

    \b
    Examples:
      ovfast doctor
      ovfast doctor --json
    """
    diagnosis = diagnose()
    if as_json:
        click.echo(json.dumps(diagnosis.to_dict(), indent=2))
    else:
        width = max(len(check.name) for check in diagnosis.checks)
        for check in diagnosis.checks:
            status = click.style(f"{check.status:<8}", fg=_COLOURS[check.status])
            click.echo(f"{status}{check.name:<{width}}  {check.summary}")
            if check.fix is not None:
                click.echo(f"{'':<8}{'':<{width}}  fix: {check.fix}")
        click.echo(diagnosis.verdict)
    ctx.exit(0 if diagnosis.healthy else 1)
