"""An inspector for tests: claims the inspections that the web front queued, and ends them as the test decides."""

import uuid
from pathlib import Path
from typing import Any

from shared.errors import ShelfsightError
from shared.inspections import jobs, results
from shared.inspections.jobs import Job, Validators
from shared.inspections.recipes import Augment
from shared.storage.blob_keys import inspection_key
from shared.storage.local_blobs import LocalBlobs
from shared.storage.mongo import Db
from shared.variants import DREAM, ORIGINAL
from tests.support.web_client import make_image

MODEL = {"name": "grocery", "version": "1", "weights_sha256": "0" * 64}
_IMAGE_FIELDS: dict[str, Any] = {"format": "jpeg", "mode": "RGB", "width": 64, "height": 48, "bytes": 1234, "frames": 1}
_DESCRIPTION_FIELDS: dict[str, Any] = {
    "exif": {"Make": "Camera"}, "icc": None, "phash": "0f" * 8, "brightness": 0.5, "sharpness": 12.5,
    "dominant_colors": [{"hex": "#102030", "share": 0.75}],
    "barcodes": [{"format": "EAN13", "text": "4006381333931", "box": [1, 2, 3, 4]}],
    "detections": [{"label": "Milk", "score": 0.875, "box": [1.0, 2.0, 30.0, 40.0]}],
    "model": MODEL,
}  # fmt: skip


class Inspector:
    """Processes one inspection per call."""

    def __init__(self, db: Db, blobs_root: Path) -> None:
        self._db, self._blobs = db, LocalBlobs(blobs_root)

    def claim(self) -> Job:
        """Claim the only queued inspection."""
        (job,) = jobs.claim(self._db, "inspector", 9, 30)
        return job

    def finish(self, *, sha256: str = "a" * 64, broken: str = "", fresh_s: float = 300) -> str:
        """Claim an inspection and finish it.

        :param broken: an augmentation that fails.
        :returns: the id of the result.
        """
        job = self.claim()
        recipe = job.recipe
        fields: dict[str, Any] = {**_IMAGE_FIELDS, "sha256": sha256}
        names = [ORIGINAL]
        if isinstance(recipe, Augment):
            names += [name for name in recipe.names if name != broken]
            fields["augmentations"] = [
                {"name": name, "error": "augmentation_failed"} if name == broken else {"name": name, "params": {"amount": 0.5}} for name in recipe.names
            ]
        else:
            fields |= _DESCRIPTION_FIELDS
            if recipe.dream is not None:
                names.append(DREAM)
                fields["effect"] = {"name": DREAM, "layer": recipe.dream.layer, "strength": recipe.dream.strength}
        result = results.result_id(sha256, recipe, None if isinstance(recipe, Augment) else MODEL)
        folder = uuid.uuid4().hex
        self._blobs.write_many([(inspection_key(folder, name), [make_image(number)]) for number, name in enumerate(names)])
        assert results.store(self._db, result, fields | {"files": names}, folder, 1000) == folder
        assert jobs.finish(self._db, "inspector", job, result, Validators(sha256), fresh_s=fresh_s, keep_s=1000)
        return result

    def fail(self, error: ShelfsightError, *, failed_s: float = 300) -> None:
        """Claim an inspection and fail it."""
        assert jobs.fail(self._db, "inspector", self.claim(), error, failed_s=failed_s, keep_s=1000)
