"""The OpenAPI schemas of the filters in ``web.image_filters``."""

from typing import Any, Final

from shared.ids import BATCH_ID_PATTERN, IMAGE_ID_PATTERN
from shared.storage.schema import BARCODE_CHECKS
from web.http.openapi_components import TIME
from web.image_filters import FILTERS, IMAGE_FILTERS, IMAGE_STATUSES, MAX_SHARPNESS, STATUSES

_TEXT: Final = {"type": "string", "minLength": 1, "maxLength": 200}
_FRACTION: Final = {"type": "number", "minimum": 0, "maximum": 1}
_SHARPNESS: Final = {"type": "number", "minimum": 0, "maximum": MAX_SHARPNESS}
_LABEL: Final = "The image shows an object with this label, according to its annotations if it has a list of them, and otherwise to its detections."
_SCORE: Final = "The object that `label` names, or any object, was detected with at least this score. Annotations have no score and meet each one."
_ALL: Final[dict[str, dict[str, Any]]] = {
    "store_name": _TEXT,
    "camera_id": _TEXT,
    "barcode": _TEXT,
    "status": {"type": "string", "enum": list(IMAGE_STATUSES)},
    "label": _TEXT | {"description": _LABEL},
    "min_score": _FRACTION | {"description": _SCORE},
    "tag": _TEXT,
    "since": TIME,
    "until": TIME,
    "batch_id": {"type": "string", "pattern": f"^{BATCH_ID_PATTERN}$"},
    "sha256": {"type": "string", "pattern": "^[0-9A-Fa-f]{64}$", "description": "The SHA-256 of the original."},
    "barcode_check": {"type": "string", "enum": list(BARCODE_CHECKS)},
    "untagged": {"type": "boolean", "const": True, "description": "The image has no tag."},
    "annotated": {"type": "boolean", "description": "Somebody has set the annotations of the image, perhaps to an empty list."},
    "min_sharpness": _SHARPNESS,
    "max_sharpness": _SHARPNESS,
    "min_brightness": _FRACTION,
    "max_brightness": _FRACTION,
    "duplicate_of": {"type": "string", "pattern": f"^{IMAGE_ID_PATTERN}$", "description": "The image looks like the image with this id, and is another one."},
}
BATCH_FILTERS: Final = {name: _ALL[name] for name in FILTERS} | {"status": {"type": "string", "enum": list(STATUSES)}}
"""The schema of each filter of a list of batches."""
IMAGE_FILTER_SCHEMAS: Final = {name: _ALL[name] for name in IMAGE_FILTERS if name != "held"}
"""The schema of each filter of a list of images that is supported."""
