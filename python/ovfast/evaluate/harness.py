"""Tasks of EleutherAI's lm-evaluation-harness, through its own API, on a model directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ovfast.model_dir import ModelDir

__all__ = ["run_harness"]


def run_harness(
    model_dir: Path | ModelDir,
    tasks: Sequence[str],
    *,
    include_path: str | Path | None = None,
    limit: int | None = None,
    progress: bool = True,
) -> dict[str, dict[str, float]]:
    """Run tasks and return task -> metric -> value, as the harness names them ("acc,none").

    Args:
        model_dir: A model directory.
        tasks: Names of tasks or groups: the harness's own, whose data may come from a hub, or those
            of `include_path`.
        include_path: A folder with task files of your own (YAML); the harness's are not read then.
        limit: Documents of each task, at most.
        progress: Show the harness's progress bars.

    Raises ValueError for tasks that it does not know.
    """
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from ovfast.evaluate.harness_lm import OvfastLM

    manager = TaskManager(
        include_path=None if include_path is None else str(include_path),
        include_defaults=include_path is None,
    )
    known = set(manager.all_tasks)
    missing = [task for task in tasks if task not in known]
    if missing:
        where = "the harness" if include_path is None else f"'{include_path}'"
        some = ", ".join(sorted(known)[:10]) or "none"
        raise ValueError(f"{where} has no task {', '.join(missing)}; it has {some}")
    with OvfastLM(model_dir, progress=progress) as model:
        found = simple_evaluate(
            model=model,
            tasks=list(tasks),
            task_manager=manager,
            limit=limit,
            log_samples=False,
            bootstrap_iters=0,
        )
    return {
        task: {
            name: float(value)
            for name, value in values.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool)
        }
        for task, values in found["results"].items()
    }
