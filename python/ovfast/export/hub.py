"""Model folders from a Hugging Face hub, where one can be reached."""

from __future__ import annotations

import re
from pathlib import Path

from ovfast.errors import ModelError

__all__ = ["fetch", "is_hub_id"]

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_TEXTS = ["*.json", "*.jinja", "*.txt", "*.model"]
# Not into folders: other formats and older copies lie there.
_SAFETENSORS, _PICKLES = "*.safetensors", "pytorch_model*.bin"


def is_hub_id(source: str | Path) -> bool:
    """Whether a source that is no path here looks like a model's id: organisation/name."""
    text = str(source)
    path = Path(text)
    # A parent that is there means a mistyped path.
    return (
        _ID.fullmatch(text) is not None
        and path.suffix.lower() != ".gguf"
        and not path.exists()
        and not path.parent.exists()
    )


def fetch(model_id: str, *, revision: str | None = None, with_code: bool = False) -> Path:
    """Return the folder of a model of the hub, downloaded if it is not in the hub's cache.

    The cache and its place are those of the huggingface_hub package (HF_HOME), as are the address
    (HF_ENDPOINT), the token (HF_TOKEN) and the progress bars.

    Args:
        model_id: organisation/name.
        revision: A branch, tag or commit; by default the main branch.
        with_code: Also the Python files.

    Raises ModelError when there is no such model or no hub.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    texts = [*_TEXTS, *(["*.py"] if with_code else [])]
    what = f"'{model_id}' is no path here, and as a model of a hub"
    try:
        folder = Path(
            snapshot_download(
                model_id,
                revision=revision,
                allow_patterns=[*texts, _SAFETENSORS],
                ignore_patterns=["*/*"],
            )
        )
        if not any(folder.glob(_SAFETENSORS)):
            snapshot_download(model_id, revision=revision, allow_patterns=[_PICKLES])
    except GatedRepoError as error:
        raise ModelError(
            f"{what} it needs its authors' permission: ask for it there and set HF_TOKEN"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{what} it has no revision '{revision}'") from error
    except RepositoryNotFoundError as error:
        raise ModelError(f"{what} it is not known, or private: then set HF_TOKEN") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ModelError(
            f"{what} it cannot be fetched: {_first_line(error)}. Without a hub, give the path of a "
            "folder, or of a GGUF file"
        ) from error
    return folder


def _first_line(error: Exception) -> str:
    lines = str(error.__cause__ or error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
