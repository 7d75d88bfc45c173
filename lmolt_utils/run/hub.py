"""What the hub's cache on this machine holds, and whether the hub answers: its own client tries for a minute."""

import os
import threading
from contextlib import suppress
from functools import cache
from pathlib import Path

from lmolt_utils.errors import TryAgainError

#: L+M-24, and the further captions of its molecules.
LPM24, LPM24_EXTRA = "language-plus-molecules/LPM-24_train", "language-plus-molecules/LPM-24_train-extra"
#: Seconds that the hub gets to answer at all.
_PATIENCE = 8.0


def snapshot(reference: str, kind: str = "model") -> Path | None:
    """The newest folder of the hub's cache with files of ``org/name[@revision]``; a model's must have weights."""
    from huggingface_hub.constants import HF_HUB_CACHE

    name, _, revision = reference.partition("@")
    kept_as = "datasets" if kind == "dataset" else "models"
    repository = Path(HF_HUB_CACHE, f"{kept_as}--{name.replace('/', '--')}")
    reference_file = repository / "refs" / (revision or "main")
    commit = reference_file.read_text().strip() if reference_file.is_file() else revision or "*"
    pattern = {"model": "*.safetensors", "dataset": "*", "vocabulary": "vocab.txt"}[kind]
    found = [folder for folder in repository.glob(f"snapshots/{commit}") if any(folder.glob(pattern))]
    return max(found, key=lambda folder: folder.stat().st_mtime, default=None)


@cache
def answers() -> bool:
    """Whether the hub (``HF_ENDPOINT``) gives any answer; asked once, by a client that knows of proxies."""
    import httpx
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    heard: list[int] = []

    def ask() -> None:
        with suppress(httpx.HTTPError):
            heard.append(httpx.head(constants.ENDPOINT, timeout=_PATIENCE).status_code)

    asking = threading.Thread(target=ask, daemon=True)  # looking up a name knows no time limit of its own
    asking.start()
    asking.join(_PATIENCE)
    return bool(heard)


def must_have(reference: str, kind: str = "model", parameter: str = "its name") -> bool:
    """Whether to read ``reference`` from the cache alone, as the hub is away; ``TryAgainError``: it is not there."""
    if answers():
        return False
    if snapshot(reference, kind):
        return True
    why = "HF_HUB_OFFLINE is set" if os.environ.get("HF_HUB_OFFLINE") else "the hub does not answer"
    more = " --repo-type dataset" if kind == "dataset" else ""
    copy = f"hf download {reference.partition('@')[0]}{more} --local-dir FOLDER"
    told = f"{why}, and its cache on this machine has no such {kind}. Where there is a network: {copy}"
    raise TryAgainError(f"{reference}: {told}; then give FOLDER as {parameter}")
