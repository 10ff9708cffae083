"""``Content-Digest``: the examples of RFC 9530, and the syntax of its structured field (RFC 9651)."""

import base64
import io
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import BadRequest, Invalid
from web.http.content_digest import DigestingStream, parse_content_digest

HELLO = b'{"hello": "world"}\n'
IN_BROTLI = bytes.fromhex("0b0980") + HELLO + b"\x03"
SHA256 = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"
SHA512 = "sha-512=:YMAam51Jz/jOATT6/zvHrLVgOYTGFy1d6GJiOHTohq4yP+pgk4vf2aCsyRZOtw8MjkM7iw7yZ/WkppmM44T3qg==:"
SHA256_IN_BROTLI = "sha-256=:d435Qo+nKZ+gLcUHn7GQtQ72hiBVAgqoLsZnZPiTGPk=:"
OTHER = "sha-256=:AAAA:"


def check(body: bytes, field: str, piece: int = 7) -> None:
    stream = DigestingStream(io.BytesIO(body), parse_content_digest(field))
    while stream.read(piece):
        pass
    stream.check()


@pytest.mark.parametrize(
    ("body", "field"), [(HELLO, SHA256), (HELLO, SHA512), (HELLO, f"{SHA256},{SHA512}"), (IN_BROTLI, SHA256_IN_BROTLI), (HELLO, f"md5=:AAAA:, {SHA256}")]
)
def test_the_examples_of_the_rfc_are_right_for_their_content_only(body: bytes, field: str) -> None:
    check(body, field)
    check(body, field, len(body))
    for damaged in (body[:-1], body + b"\n", b""):
        with pytest.raises(Invalid) as refused:
            check(damaged, field)
        assert (refused.value.status, refused.value.code) == (422, "digest_mismatch")


@pytest.mark.parametrize("field", [f"{SHA256}, {OTHER}", f"{SHA512}, {OTHER}", "sha-512=::", f"{SHA512[:-3]}:,{OTHER}"])
def test_each_known_digest_must_be_right_and_the_last_of_two_with_one_name_counts(field: str) -> None:
    with pytest.raises(Invalid):
        check(HELLO, field)
    check(HELLO, f"{OTHER},{SHA256}")


@pytest.mark.parametrize(
    "field",
    [
        f"{SHA256} \t,\t {SHA512}",
        f"  {SHA256}  ",
        f"{SHA256[:-2]}:",  # padding may be missing (RFC 9651, 4.2.7)
        f'{SHA256};a;b=?0; *c="x, \\"y";d=-1.5;e=:AA==:;f=tok/en',
        "",
        "adler=:AAAA:,*x.y_z-1=:AAAA:",
    ],
)
def test_the_syntax_of_structured_fields_is_accepted(field: str) -> None:
    check(HELLO, field)


@pytest.mark.parametrize(
    "field",
    [
        "sha-256", "sha-256=", "sha-256=abc", "sha-256=?1", 'sha-256="abc"', "sha-256=(:AAAA:)", "sha-256=:AAAA", "sha-256=:A:", "sha-256=:A=A=:",
        "sha-256=:AA_-:", "sha-256 =:AAAA:", "sha-256= :AAAA:", "SHA-256=:AAAA:", "sha-256=:AAAA:,", ",sha-256=:AAAA:", "sha-256=:AAAA:,,md5=:AAAA:",
        "sha-256=:AAAA: md5=:AAAA:", "sha-256=:AAAA:;", "sha-256=:AAAA:;A", "sha-256=:AAAA:;a=", "sha-256=:AAAA:x", "sha-256=:AAÄ=:", "\n",
        "sha-256=44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a", *[f"sha-256=:AAAA:{mark * 2000})" for mark in (";a", ";a=b", " ", ",", ";aaaa=1.")],
    ],
)  # fmt: skip
def test_anything_else_is_malformed(field: str) -> None:
    with pytest.raises(BadRequest) as refused:
        parse_content_digest(field)
    assert (refused.value.status, refused.value.code) == (400, "bad_request")


@given(st.text(st.sampled_from('sha-256=:;, "\\A?1.()\t')))
def test_any_text_is_parsed_or_malformed(field: str) -> None:
    with suppress(BadRequest):
        parse_content_digest(field)


@given(st.dictionaries(st.sampled_from(["sha-256", "sha-512", "md5", "*"]), st.binary(max_size=70)))
def test_every_dictionary_of_bytes_is_read(digests: dict[str, bytes]) -> None:
    field = ", ".join(f"{name}=:{base64.b64encode(value).decode()}:" for name, value in digests.items())
    assert parse_content_digest(field) == digests
