"""The keys of all blobs.

::

    bond                                           the marker of the database that the store belongs to, see ``shared.storage.identity``
    spool/<batch>                                  all originals of a batch, concatenated
    files/<xx>/<batch>/<index>.<ext>               an original, byte for byte
    files/<xx>/<batch>/<index>/<fence>/<name>.jpg  a variant written under one claim: thumb, boxes, rendition, augmentations
    files/<xx>/<batch>/<index>/live                once the image is done: a link to the folder of the valid fence
    inspections/<xx>/<folder>/<name>.jpg           an image made for an inspection; each run writes to a folder of its own
    inspections/incoming/<job>                     an image that was uploaded for an inspection, until it has been processed

``xx`` are the last two digits of the id, which are random: 256 folders share the load. The fence separates the files of a worker that lost its
claim from those of the worker that holds it. Through the link a plain file server finds everything that it may serve of an image without asking
the database: ``live/<name>.jpg``, and the original as ``live/../../<index>.<ext>``, a path that exists only once the image is done, and never
when it failed.
"""

from typing import Final

from shared.ids import batch_of

IDENTITY: Final = "bond"
SPOOL: Final = "spool"
FILES: Final = "files"
INSPECTION_FILES: Final = "inspections"
INCOMING: Final = f"{INSPECTION_FILES}/incoming"


def spool_key(batch_id: str) -> str:
    """Key of a batch's spool."""
    return f"{SPOOL}/{batch_id}"


def batch_prefix(batch_id: str) -> str:
    """Folder of all files of a batch except its spool."""
    return f"{FILES}/{batch_id[-2:]}/{batch_id}"


def original_key(image_id: str, ext: str) -> str:
    """Key of an original; ``ext`` is its file ending without the dot."""
    return f"{batch_prefix(batch_of(image_id))}/{image_id[32:]}.{ext}"


def image_prefix(image_id: str) -> str:
    """Folder of an image's variants."""
    return f"{batch_prefix(batch_of(image_id))}/{image_id[32:]}"


def variant_key(image_id: str, fence: int, name: str) -> str:
    """Key of a variant written under the claim with this fence."""
    return f"{image_prefix(image_id)}/{fence}/{name}.jpg"


def inspection_prefix(folder: str) -> str:
    """Folder of the images that one run of an inspection made; ``folder`` is its name."""
    return f"{INSPECTION_FILES}/{folder[-2:]}/{folder}"


def inspection_key(folder: str, name: str) -> str:
    """Key of an image that was made for an inspection."""
    return f"{inspection_prefix(folder)}/{name}.jpg"


def incoming_key(job_id: str) -> str:
    """Key of an image that was uploaded for an inspection."""
    return f"{INCOMING}/{job_id}"
