"""Find a checkpoint by its name: the embedded one, a folder, or a repository of the hub (safetensors alone)."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from plmscope.errors import ModelError, one_line
from plmscope.models.checkpoints import (
    ADAPTER,
    INDEX,
    PICKLED,
    PICKLES,
    TEXTS,
    WEIGHTS,
    Checkpoint,
    _check_texts,
    _check_weights,
    _copied,
    _download,
    _is_file,
    _of_file,
    local_folder,
    read_json,
)


def find_checkpoint(
    name: str, revision: str | None = None, say: Callable[[str], None] = lambda line: None
) -> Checkpoint:
    """Find a checkpoint and check all that can be checked without building a model.

    Args:
        name: ``plmscope:embedded``, a folder, a run folder (its fine-tuned model), or a hub id.
        revision: Branch, tag or commit on the hub.
        say: Told when something is downloaded.

    Raises:
        ModelError: it is not there, lacks a file, has pickled weights only, comes with code, is cut short, or its
            configuration is impossible.
    """
    folder = local_folder(name)
    if folder is not None:
        checkpoint = Checkpoint(name, folder)
    elif _is_file(name):
        raise ModelError(f"{name}: {_of_file(Path(os.path.expanduser(name)))}")
    elif name.startswith((".", "/", "~")) or name.count("/") > 1 or len(name) > 255 or Path(name).exists():
        raise ModelError(
            f"{name}: no such model folder; name a folder with config.json and model.safetensors, or a hub id"
        )
    else:
        checkpoint = _from_hub(name, revision, say)
    _check_texts(checkpoint)
    _check_weights(checkpoint)
    return checkpoint


def said_by(name: str, revision: str | None = None) -> dict[str, Any]:
    """The ``config.json`` of a checkpoint, without fetching its weights; empty where there is none or it is damaged.

    Of a repository on the hub the one in the cache, or that file alone is fetched. What is wrong is said by
    :func:`find_checkpoint`, which is never spared by this.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    folder = local_folder(name)
    try:
        if folder is not None:
            return Checkpoint(name, folder).config
        path = try_to_load_from_cache(name, "config.json", revision=revision)
        if not isinstance(path, str):
            path = hf_hub_download(name, "config.json", revision=revision)
        return read_json(Path(path), name)
    except (ModelError, OSError, ValueError):  # the hub's own errors are among these
        return {}


def _from_hub(name: str, revision: str | None, say: Callable[[str], None]) -> Checkpoint:
    """The hub's cache, filled if need be."""
    from huggingface_hub import HfApi, constants, errors, snapshot_download, utils
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    asked = f"{name} at revision {revision}" if revision else name
    bars: Any = utils
    were_off = bars.are_progress_bars_disabled()
    http_error: type[Exception] = vars(errors)["HTTPError"]  # that of the client the hub's library uses
    try:
        wanted = None
        if not constants.HF_HUB_OFFLINE:
            try:
                info = HfApi().model_info(name, revision=revision, files_metadata=True)
                wanted = _wanted(name, revision, [file.rfilename for file in info.siblings or []])
                size = sum(file.size or 0 for file in info.siblings or [] if file.rfilename in wanted)
                say(f"{asked}: {size / 1e6:,.1f} MB on the hub, kept in {constants.HF_HUB_CACHE}")
            except (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError, HFValidationError):
                raise
            except (OSError, http_error) as error:
                say(f"{asked}: the hub does not answer ({one_line(error)}); looking in the cache")
        if sys.stderr.isatty():
            bars.enable_progress_bars()
        folder = Path(
            snapshot_download(name, revision=revision, allow_patterns=wanted or [*TEXTS, "*.safetensors", INDEX])
        )
    except GatedRepoError:
        raise ModelError(
            f"{name}: its authors ask for consent; give it on {constants.ENDPOINT}/{name} and log in (hf auth login)"
        ) from None
    except RepositoryNotFoundError:
        raise ModelError(
            f"{name}: is neither a folder nor a model on {constants.ENDPOINT}; check the name, or log in if it is "
            "private (hf auth login)"
        ) from None
    except RevisionNotFoundError:
        raise ModelError(
            f"{name}: has no revision {revision!r} on {constants.ENDPOINT}; check [model] revision"
        ) from None
    except HFValidationError:
        raise ModelError(
            f"{name}: no such model folder, and no hub id either; name a folder with config.json and "
            "model.safetensors, or an id such as facebook/esm2_t6_8M_UR50D"
        ) from None
    except LocalEntryNotFoundError as error:
        why = f"{constants.ENDPOINT} does not give it ({one_line(error.__cause__ or error)})"
        raise ModelError(
            f"{asked}: is not in the cache {constants.HF_HUB_CACHE}, and "
            f"{'HF_HUB_OFFLINE is set' if constants.HF_HUB_OFFLINE else why}; "
            f"run once with the network ({_download(name, revision)}), or name a folder"
        ) from None
    except (OSError, http_error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk is full or not writable
        raise ModelError(f"{asked}: download failed ({one_line(error)}); run again to continue") from None
    finally:
        if were_off:
            bars.disable_progress_bars()
    return Checkpoint(name, folder, folder.name)


def _wanted(name: str, revision: str | None, files: list[str]) -> list[str]:
    """Which files of a repository are read.

    Raises:
        ModelError: it has no safetensors.
    """
    texts = [file for file in files if file in TEXTS]
    shards = [file for file in files if file.startswith("model-") and file.endswith(".safetensors")]
    for weights in ([WEIGHTS], [INDEX, *shards], [ADAPTER]):
        if weights[0] in files:
            return [*texts, *weights]
    if any(file.endswith(PICKLES) for file in files):
        raise ModelError(f"{name}: {PICKLED}; {_copied(name, revision)}")
    raise ModelError(f"{name}: has no {WEIGHTS} on the hub; name a model with safetensors")
