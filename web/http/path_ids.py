"""Check ids in the paths of requests."""

from shared.errors import NotFound
from shared.ids import is_batch_id, is_id, is_image_id


def check_batch_id(text: str) -> None:
    """Check that a text from a path has the form of a batch id.

    :raises NotFound: when it does not, as for a batch that does not exist.
    """
    if not is_batch_id(text):
        raise NotFound("There is no such batch.")


def check_image_id(text: str) -> None:
    """Check that a text from a path has the form of an image id.

    :raises NotFound: when it does not, as for an image that does not exist.
    """
    if not is_image_id(text):
        raise NotFound("There is no such image.")


def check_job_id(text: str) -> None:
    """Check that a text from a path has the form of a job id.

    :raises NotFound: when it does not, as for a job that does not exist.
    """
    if not is_id(text):
        raise NotFound("There is no such job.")
