"""The keys of all blobs.

::

    bond                                           the store identity; see ``shared.storage.identity``
    spool/<batch>                                  all originals of a batch, concatenated
    files/<xx>/<batch>/<index>.<ext>               an original, byte for byte
    files/<xx>/<batch>/<index>/<fence>/<name>.jpg  a variant written under one claim: thumb, boxes, rendition, augmentations
    files/<xx>/<batch>/<index>/live                a link to the folder of the fence that is shown, if there is one
    inspections/<xx>/<folder>/<name>.jpg           an image made for an inspection; each run writes to its own folder
    inspections/incoming/<job>                     an image that was uploaded for an inspection, until it has been processed
    files/probe, ready/web                         blobs that are written to check whether the blob store works

``<xx>`` stands for the last two digits of the id of the batch or of the name of the folder. They are random, so the
files are spread evenly over 256 folders. The fence separates the files of a worker that has lost its claim from the
files of the worker that holds the claim. The link ``live`` leads a plain file server to the files of an image that it
may serve, so the file server needs no query to the database. Variants are at ``live/<name>.jpg``, and the original is
at ``live/../../<index>.<ext>``. These paths exist only after the first successful result of the image
(``shared.ledger.shown_results``); for a failed image, they never exist.
"""

from typing import Final

from shared.ids import batch_of

IDENTITY: Final = "bond"
SPOOL: Final = "spool"
FILES: Final = "files"
INSPECTION_FILES: Final = "inspections"
SHARDS: Final = 256
PROBE: Final = f"{FILES}/probe"
INCOMING: Final = f"{INSPECTION_FILES}/incoming"


def shard_prefix(folder: str, number: int) -> str:
    """Return the path of one of the 256 subfolders ``<xx>`` of ``folder``.

    :param folder: ``FILES`` or ``INSPECTION_FILES``.
    :param number: number of the subfolder, from 0 to ``SHARDS`` - 1.
    """
    return f"{folder}/{number:02x}"


def spool_key(batch_id: str) -> str:
    """Return the key of a batch's spool."""
    return f"{SPOOL}/{batch_id}"


def batch_prefix(batch_id: str) -> str:
    """Return the folder of all files of a batch, except for its spool."""
    return f"{FILES}/{batch_id[-2:]}/{batch_id}"


def original_key(image_id: str, ext: str) -> str:
    """Return the key of an original. ``ext`` is its file ending without the dot."""
    return f"{batch_prefix(batch_of(image_id))}/{image_id[32:]}.{ext}"


def image_prefix(image_id: str) -> str:
    """Return the folder of an image's variants."""
    return f"{batch_prefix(batch_of(image_id))}/{image_id[32:]}"


def variant_key(image_id: str, fence: int, name: str) -> str:
    """Return the key of a variant that is written under the claim with the fence ``fence``."""
    return f"{image_prefix(image_id)}/{fence}/{name}.jpg"


def inspection_prefix(folder: str) -> str:
    """Return the path of the folder for the images that one run of an inspection makes.

    :param folder: name of the folder, without its path.
    """
    return f"{INSPECTION_FILES}/{folder[-2:]}/{folder}"


def inspection_key(folder: str, name: str) -> str:
    """Return the key of an image that was made for an inspection."""
    return f"{inspection_prefix(folder)}/{name}.jpg"


def incoming_key(job_id: str) -> str:
    """Return the key of an image that was uploaded for an inspection."""
    return f"{INCOMING}/{job_id}"
