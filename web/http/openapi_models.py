"""Generate the response models for stored documents from the fields that ``shared.storage.schema`` declares."""

from functools import cache
from types import GenericAlias
from typing import Any, Final

import mongoengine as me
from pydantic import Field, create_model

from shared.storage.schema import public_fields

_TYPES: Final = {me.StringField: str, me.IntField: int, me.FloatField: float, me.BooleanField: bool, me.DateTimeField: str}


@cache
def response_model(document: Any, *computed: tuple[str, Any], after: str | None = None) -> Any:
    """Return the pydantic model for a document in a response.

    The model has the public fields of the document and the fields that the serializer adds. If several response models
    contain the same document, they share one model, so OpenAPI has only one component for the document.

    :param document: a MongoEngine document. The model has the same name and docstring.
    :param computed: the name and the type of each field that the serializer adds.
    :param after: the stored field after which the added fields are inserted. If None, they are appended at the end.
    """
    fields: dict[str, Any] = {}
    for name, field in public_fields(document).items():
        # A field whose stored name is a keyword of Python has another name in the declaration.
        is_renamed = not field.primary_key and field.db_field != name
        fields[name] = (_shown_type(field), Field(alias=field.db_field) if is_renamed else ...)
        if name == after:
            fields |= dict(computed)
    return create_model(document.__name__, __doc__=document.__doc__, __module__=__name__, **fields | dict(computed))


def _shown_type(field: Any) -> Any:
    if hasattr(field, "shown_as"):
        is_document = isinstance(field.shown_as, type) and issubclass(field.shown_as, me.EmbeddedDocument)
        return response_model(field.shown_as) if is_document else field.shown_as
    if isinstance(field, me.ListField):
        shown: Any = GenericAlias(list, _shown_type(field.field))
    elif isinstance(field, me.DictField):
        shown = dict[str, Any]
    else:
        shown = _TYPES[type(field)]
    return shown | None if field.null else shown
