"""Where each file lies in the blob store.

::

    bond                                           the mark that says to which database all this belongs, see ``shared.storage.identity``
    spool/<batch>                                  every original of an upload, one after the other
    files/<xx>/<batch>/<index>.<ext>               an original, byte for byte
    files/<xx>/<batch>/<index>/<fence>/<name>.jpg  what one claim made of it: thumb, boxes, rendition, augmentations
    files/<xx>/<batch>/<index>/live                once the image is done: a link to the folder of the fence that is valid
    inspections/<xx>/<folder>/<name>.jpg           a picture that was made for an inspection; each making has a folder
    inspections/incoming/<job>                     a picture that was handed over for one, until it was looked at

``xx`` are the last two digits of the id, which are random: 256 folders share the load. The fence keeps the work of
a worker that lost its claim apart from that of the one that holds it. Through the link a plain file server finds all that it
may serve of an image without asking the database: ``live/<name>.jpg``, and the original as ``live/../../<index>.<ext>``, which
leads nowhere before the image is done, nor ever when it failed.
"""

from typing import Final

from shared.ids import batch_of

MARK: Final = "bond"
SPOOL: Final = "spool"
FILES: Final = "files"
INSPECTIONS: Final = "inspections"
INCOMING: Final = f"{INSPECTIONS}/incoming"


def spool_key(batch_id: str) -> str:
    """Place of the upload's spool."""
    return f"{SPOOL}/{batch_id}"


def batch_prefix(batch_id: str) -> str:
    """Folder of everything that belongs to a batch, but its spool."""
    return f"{FILES}/{batch_id[-2:]}/{batch_id}"


def original_key(image_id: str, ext: str) -> str:
    """Place of an original; ``ext`` is its format's ending."""
    return f"{batch_prefix(batch_of(image_id))}/{image_id[32:]}.{ext}"


def image_prefix(image_id: str) -> str:
    """Folder of everything made from an image."""
    return f"{batch_prefix(batch_of(image_id))}/{image_id[32:]}"


def variant_key(image_id: str, fence: int, name: str) -> str:
    """Place of a picture made from an image under the claim with this fence."""
    return f"{image_prefix(image_id)}/{fence}/{name}.jpg"


def made_prefix(folder: str) -> str:
    """Folder of the pictures of one making for an inspection; ``folder`` is its name."""
    return f"{INSPECTIONS}/{folder[-2:]}/{folder}"


def made_key(folder: str, name: str) -> str:
    """Place of a picture that was made for an inspection."""
    return f"{made_prefix(folder)}/{name}.jpg"


def incoming_key(job_id: str) -> str:
    """Place of a picture that was handed over to be inspected."""
    return f"{INCOMING}/{job_id}"
