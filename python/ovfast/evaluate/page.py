"""The report: one HTML page that needs nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ovfast.errors import Error
from ovfast.evaluate import plots
from ovfast.evaluate.result import Evaluation

__all__ = ["render_page", "write_page"]

_TEMPLATE = "page.html.jinja"


def write_page(result: Evaluation, path: Path) -> None:
    """Write the report; a file that is there is replaced at once. Raises Error when it cannot be."""
    page = render_page(result)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(page, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise Error(f"the report '{path}' cannot be written: {error.strerror}") from error


def render_page(result: Evaluation) -> str:
    """Make the page."""
    import jinja2

    # What models say goes into the page: everything is escaped but our own plots.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda value: _or_dash(value, lambda x: f"{100 * x:.2f} %")
    environment.filters["number"] = lambda value: _or_dash(value, lambda x: f"{x:.4g}")
    environment.filters["megabytes"] = lambda value: _or_dash(value, lambda x: f"{x / 1e6:.0f} MB")
    return environment.get_template(_TEMPLATE).render(result=result, plots=_plots(result))


def _plots(result: Evaluation) -> dict[str, str]:
    made = dict.fromkeys(("divergence", "context", "first_divergent", "layers"), "")
    if result.text is not None and result.text.kl is not None:
        made["divergence"] = plots.plot_divergence(result.text)
        made["context"] = plots.plot_context(result.text)
    if result.generations is not None and result.generations.divergent_share is not None:
        made["first_divergent"] = plots.plot_first_divergent(result.generations)
    if result.layers is not None and result.layers.layers:
        made["layers"] = plots.plot_layers(result.layers)
    return made


def _or_dash(value: float | None, form: Callable[[float], str]) -> str:
    return "–" if value is None else form(value)
