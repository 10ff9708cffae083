"""The errors of fields are sentences for people, with stable codes."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from web.accounts import schemas
from web.http.field_errors import field_errors


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid")

    text: Annotated[str, StringConstraints(strict=True, min_length=1, max_length=3)] = "x"
    items: Annotated[list[int], Field(min_length=1, max_length=2)] = [1]
    flag: Annotated[bool, Field(strict=True)] = True
    choice: Literal["a", "b"] = "a"
    number: Annotated[int, Field(ge=1, le=9)] = 1


def errors_of(model: type[BaseModel], value: dict[str, Any]) -> list[tuple[str, str, str]]:
    with pytest.raises(ValidationError) as refused:
        model.model_validate(value)
    return [(error.pointer, error.code, error.detail) for error in field_errors(refused.value)]


@pytest.mark.parametrize(
    ("value", "code", "detail"),
    [
        ({"text": ""}, "blank", "The text is empty; send one."),
        ({"text": "long"}, "too_long", "The text is too long; use at most 3 characters."),
        ({"text": 1}, "wrong_type", "The value is not a text; send a text."),
        ({"items": []}, "wrong_type", "The list is too short; its least length is 1."),
        ({"items": [1, 2, 3]}, "too_long", "The list is too long; send at most 2 elements."),
        ({"items": 1}, "wrong_type", "The value is not a list; send a list."),
        ({"flag": "yes"}, "wrong_type", "The value is not true or false; send one of them."),
        ({"choice": "c"}, "bad_value", "The value is unknown; send one of 'a' or 'b'."),
        ({"number": 0}, "bad_value", "The value is too small; send at least 1."),
        ({"number": 10}, "bad_value", "The value is too large; send at most 9."),
        ({"other": 1}, "unknown_field", "This field is unknown; remove it."),
    ],
)
def test_an_error_is_a_sentence(value: dict[str, Any], code: str, detail: str) -> None:
    assert errors_of(Model, value) == [(f"/{next(iter(value))}", code, detail)]


def test_a_value_of_the_client_is_no_template() -> None:
    assert errors_of(Model, {"{0}": "{text}", "text": "{ge}{}"})[0] == ("/text", "too_long", "The text is too long; use at most 3 characters.")


def test_a_form_to_sign_up_gets_every_error_at_once() -> None:
    assert errors_of(schemas.SignUp, {"username": "", "email": "", "password": ""}) == [
        ("/username", "blank", "The user name is missing; enter one."),
        ("/email", "blank", "The email address is missing; enter one."),
        ("/password", "bad_password", "The password is too short; use at least 15 characters, for example several words."),
    ]
    found = errors_of(schemas.SignUp, {"username": "anna b", "email": "anna", "password": 20 * "ab"})
    assert [(pointer, code) for pointer, code, _ in found] == [("/username", "bad_value"), ("/email", "bad_value"), ("/password", "bad_password")]
    assert [detail.partition(";")[0] for _, _, detail in found] == ["The user name is invalid", "The email address is invalid", "The password repeats a shorter text"]
    assert errors_of(schemas.SignUp, {}) == [(f"/{name}", "missing", "This field is missing; send it.") for name in ("username", "email", "password")]


def test_what_is_empty_is_named() -> None:
    assert errors_of(schemas.Credentials, {"username": "", "password": ""}) == [
        ("/username", "blank", "The user name or the email address is missing; enter it."),
        ("/password", "blank", "The password is missing; enter it."),
    ]
    assert errors_of(schemas.NewApiKey, {"name": " ", "role": "viewer", "stores": ["north"]}) == [("/name", "blank", "The name of the key is missing; enter one.")]


def test_the_schemas_describe_what_the_validators_refuse() -> None:
    properties = schemas.SignUp.model_json_schema()["properties"]
    assert properties["username"]["pattern"] == "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
    assert properties["email"]["pattern"].startswith("^[^@")
    assert schemas.Credentials.model_json_schema()["properties"]["password"]["minLength"] == 1
