"""Read the bodies of requests about accounts, and check passwords."""

from urllib.parse import parse_qsl

from shared.accounts import passwords
from shared.accounts.permissions import ROLES, Rights, Role
from shared.allowed_stores import stores_from_list
from shared.errors import FieldError, Invalid
from web import request_bodies
from web.accounts.schemas import Credentials
from web.http.json_model import MAX_BYTES, read_model, validate

FORM = "application/x-www-form-urlencoded"
_MAX_FORM_FIELDS = 20


def read_credentials() -> Credentials:
    """Read a user name or an email address and a password, as JSON or as the password form of OAuth 2.0 (RFC 6749, 4.3.2).

    The form's other fields (``grant_type``, ``scope``, ``client_id``, ``client_secret``) are ignored.
    """
    with request_bodies.open_body() as body:
        if body.media_type != FORM:
            return read_model(body, Credentials)
        text = body.read(MAX_BYTES)
    try:
        fields = dict(parse_qsl(text.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FORM_FIELDS))
    except ValueError:
        raise Invalid("The form is not UTF-8 text, or has too many fields; send `username` and `password`.") from None
    return validate({name: fields[name] for name in ("username", "email", "password") if name in fields}, Credentials)


def check_new_password(pointer: str, password: str, *names: str | None) -> None:
    """Refuse a password that is a name of its user. ``web.accounts.schemas`` checks everything else.

    :param names: names that the password must not be.
    :raises Invalid: when it is (``bad_password`` at ``pointer``).
    """
    fault = passwords.find_fault(password, *filter(None, names))
    if fault is not None:
        raise Invalid(fault, errors=[FieldError(pointer, "bad_password", fault)])


def rights_of_role(role: Role, stores: list[str]) -> Rights:
    """Return the rights of a role in the stores that a request names."""
    return Rights(ROLES[role], stores_from_list(stores))
