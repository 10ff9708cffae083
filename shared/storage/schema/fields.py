"""The fields of a declared document: which of them responses contain, and their values in a new document.

MongoEngine stores unknown keyword arguments as attributes of the field. The declarations use four of them:

- ``initial``: the value of the field in a new document. Without ``initial``, the value is None if the field has
  ``null=True``, and an empty list or dictionary for a ``ListField`` or ``DictField``. Any other field that is not
  required is missing in a new document.
- ``set_later=True``: the field is missing in a new document, and until it is set for the first time.
- ``public=False``: no response contains the field.
- ``shown_as``: the type of the field in responses, if it is narrower than the type of the MongoEngine field.
"""

from typing import Any

import mongoengine as me


def public_fields(document: type[me.Document]) -> dict[str, me.fields.BaseField]:
    """Return the fields that responses contain, by name, in the order of their declaration."""
    return {name: field for name, field in _fields(document).items() if getattr(field, "public", True)}


def hidden_fields(document: type[me.Document]) -> tuple[str, ...]:
    """Return the stored names of the fields that no response contains."""
    return tuple(field.db_field for field in _fields(document).values() if not getattr(field, "public", True))


def initial_document(document: type[me.Document]) -> dict[str, Any]:
    """Return a new document in its stored form, with the fields in the order of their declaration.

    The module docstring describes the initial values. A required field without an initial value is None, and the caller
    must set it.
    """
    return {field.db_field: _initial_value(field) for field in _fields(document).values() if _is_present_at_first(field)}


def _fields(document: type[me.Document]) -> dict[str, me.fields.BaseField]:
    return {name: document._fields[name] for name in document._fields_ordered}  # noqa: SLF001 -- MongoEngine has no public API for it


def _is_present_at_first(field: me.fields.BaseField) -> bool:
    if getattr(field, "set_later", False):
        return False
    return field.required or field.null or hasattr(field, "initial") or isinstance(field, me.ListField | me.DictField)


def _initial_value(field: me.fields.BaseField) -> Any:
    if isinstance(field, me.EmbeddedDocumentField):
        return initial_document(field.document_type)
    if hasattr(field, "initial") or field.null:
        return getattr(field, "initial", None)
    if isinstance(field, me.DictField):
        return {}
    return [] if isinstance(field, me.ListField) else None
