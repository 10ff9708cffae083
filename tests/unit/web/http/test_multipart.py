"""Forms as clients send them: line ends, boundaries, file names, and what is refused."""

import json

import pytest

from shared.errors import BadRequest, TooLarge
from web.http.multipart import Part, find_part, parse_form

DATA = bytes(range(256)) * 3 + b"\r\n\r\n--\r\n"


def form(*parts: bytes, boundary: bytes = b"XX", newline: bytes = b"\r\n", end: bytes = b"--\r\n") -> bytes:
    """Return a form whose parts are given with their headers, and with CR LF between headers and content."""
    return b"".join(b"--" + boundary + newline + part + newline for part in parts) + b"--" + boundary + end


def part(parameters: bytes, data: bytes = DATA, newline: bytes = b"\r\n") -> bytes:
    return b"Content-Disposition: form-data; " + parameters + newline * 2 + data


def names(parameters: bytes) -> list[str | None]:
    return [found.filename for found in parse_form(form(part(b"name=file; " + parameters)), "XX", max_images=9)]


def test_the_contents_of_the_parts_come_back_unchanged() -> None:
    parts = parse_form(
        form(part(b'name="metadata"', b"[]"), part(b'name="file"; filename="a.jpg"'), part(b'name="file"', b"")),
        "XX",
        max_images=9,
    )
    assert parts == [Part("metadata", None, b"[]"), Part("file", "a.jpg", DATA), Part("file", None, b"")]


@pytest.mark.parametrize("newline", [b"\r\n", b"\n", b"\r"])
@pytest.mark.parametrize("end", [b"--\r\n", b"--", b"-- \r\n", b"--\r\nan epilogue\r\n--XX\r\n"])
@pytest.mark.parametrize("preamble", [b"", b"\r\n", b"a preamble with --XX in it\r\n"])
def test_line_ends_preamble_and_epilogue_do_not_matter(newline: bytes, end: bytes, preamble: bytes) -> None:
    body = preamble + form(part(b"name=file", b"\xff\xd8data\xff\xd9", newline), newline=newline, end=end)
    assert parse_form(body, "XX", max_images=9) == [Part("file", None, b"\xff\xd8data\xff\xd9")]


def test_white_space_after_a_boundary_and_folded_headers_are_read() -> None:
    body = b'--XX \t\r\nContent-Disposition: form-data;\r\n name="file";\r\n\tfilename="a.jpg"\r\ncontent-type: image/jpeg\r\n\r\nabc\r\n--XX--'
    assert parse_form(body, "XX", max_images=9) == [Part("file", "a.jpg", b"abc")]


def test_what_only_resembles_the_boundary_belongs_to_the_content() -> None:
    data = b"a--XX\r\n \r\n--XXL\r\n\r\n--X\r\n-XX\r\n --XX--"
    assert parse_form(form(part(b"name=file", data)), "XX", max_images=9)[0].data == data


@pytest.mark.parametrize(
    "boundary", ["----WebKitFormBoundary7MA4YWxkTrZu0gW", "a b", "'()+_,-./:=?", "x", "=_" + "9" * 68, "caf\xe9"]
)
def test_any_boundary_is_found(boundary: str) -> None:
    body = form(part(b"name=file"), part(b"name=file"), boundary=boundary.encode("latin-1"))
    assert [found.data for found in parse_form(body, boundary, max_images=9)] == [DATA, DATA]


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        (b'filename="caf\xe9.jpg"', "caf\xe9.jpg"),
        (b'filename="\x80 \x93a\x94.jpg"', "\u20ac \u201ca\u201d.jpg"),
        (b'filename="\x8f\xe5\x90}.jpg"', "\ufffd\xe5\ufffd}.jpg"),
        ('filename="é 😀 店.jpg"'.encode(), "é 😀 店.jpg"),
        (b"filename=\"x.jpg\"; filename*=UTF-8''%C3%A9%20%E2%82%AC.jpg", "é €.jpg"),
        (b"filename*=iso-8859-1''%E9.jpg", "é.jpg"),
        (b"filename*=utf-8''%FF.jpg", "\ufffd.jpg"),
        (b'filename="a%22b.jpg"', 'a"b.jpg'),
        (rb'filename="a\"b.jpg"', 'a"b.jpg'),
        (rb'filename="C:\\dir\\a.jpg"', r"C:\dir\a.jpg"),
        (rb'filename="C:\dir\a.jpg"', r"C:\dir\a.jpg"),
        (b'filename="a;b=c, d.jpg"', "a;b=c, d.jpg"),
        (b'filename="100% a+b.jpg"', "100% a+b.jpg"),
        (b"filename=a.jpg", "a.jpg"),
        (b'filename="a\0b\x07\x7f\xc2\x85c.jpg"', "abc.jpg"),
        (b'filename=""', None),
        (b'filename="  "', None),
        (b'filename="open', None),
        (b'filename="open; filename=b.jpg', "b.jpg"),
        (b'filename="a"b.jpg"', 'a"b.jpg'),
        (b'filename="a.jpg"; ;', "a.jpg"),
        (b"", None),
        (b"filename=caf\xe9.jpg", "caf\xe9.jpg"),
        (b"filename=a b.jpg ; x=y", "a b.jpg"),
        (b"filename*=windows-1252''%93a.jpg", "\u201ca.jpg"),
        (b"filename*=Shift_JIS'ja'%95%5C.jpg", "\u8868.jpg"),
        (b"filename*=\"UTF-8''%C3%A9.jpg\"", "\xe9.jpg"),
        (b"filename=\"a.jpg\"; filename*=no-such-charset''%93b.jpg", "a.jpg"),
        (b"filename=\"a.jpg\"; filename*=hex''616", "a.jpg"),
        (b'filename="a.jpg"; filename*=b.jpg', "a.jpg"),
        (b"filename*=UTF-8''%C3%A9.jpg; filename=\"x.jpg\"", "\xe9.jpg"),
        (b'filename*0="a;b"; filename*1="c.jpg"', "a;bc.jpg"),
        (b"filename*0*=UTF-8''%C3%A9; filename*1=\"%.jpg\"", "\xe9%.jpg"),
    ],
)
def test_a_file_name_is_decoded_and_never_refuses_the_image(parameters: bytes, name: str | None) -> None:
    assert names(parameters) == [name]


@pytest.mark.parametrize(
    ("filename", "decoded"),
    [
        (b'"\x95\x5c"', "\u2022\\"),  # the last byte of a character in Shift_JIS can be a backslash
        (b'"\xe9 \\"x\\".jpg"', '\xe9 "x".jpg'),
        (b'"C:\\dir\\"', "C:\\dir\\"),
        ('"é\\"'.encode(), "é\\"),
    ],
)
def test_a_backslash_at_the_end_of_a_file_name_does_not_hide_the_name_of_the_part(filename: bytes, decoded: str) -> None:
    for parameters in (b'filename=%s; name="file"' % filename, b'name="file"; filename=%s' % filename):
        (found,) = parse_form(form(part(parameters)), "XX", max_images=9)
        assert (found.name, found.filename) == ("file", decoded)


def test_an_escaped_quote_before_a_semicolon_belongs_to_the_file_name() -> None:
    assert names(rb'filename="a\"; b=\".jpg"') == ['a"; b=".jpg']


def test_only_the_first_of_repeated_headers_counts() -> None:
    body = form(b"Content-Disposition: form-data; name=file; filename=a.jpg\r\n" + part(b"name=other; filename=b.jpg"))
    assert parse_form(body, "XX", max_images=9) == [Part("file", "a.jpg", DATA)]


@pytest.mark.parametrize("encoding", [b"binary", b"8bit", b"7BIT", b""])
def test_a_part_may_say_that_it_is_not_encoded(encoding: bytes) -> None:
    body = form(b"Content-Transfer-Encoding: " + encoding + b"\r\n" + part(b"name=file"))
    assert parse_form(body, "XX", max_images=9)[0].data == DATA


@pytest.mark.parametrize(
    ("body", "boundary", "advice"),
    [
        (form(part(b"name=file")), "", "has no boundary"),
        (form(part(b"name=file")), "YY", "does not contain the boundary"),
        (b"", "XX", "does not contain the boundary"),
        (form(part(b"name=file"), end=b""), "XX", "no closing boundary"),
        (form(part(b"name=file"))[:-6], "XX", "no closing boundary"),
        (form(b"just text"), "XX", "no headers"),
        (form(b"X: " + b"a" * 9000 + b"\r\n" + part(b"name=file")), "XX", "more than 4096 bytes of headers"),
        (form(part(b'name=file; filename="' + b"a" * 5000 + b'"')), "XX", "more than 4096 bytes of headers"),
        (form(b"Content-Type: image/jpeg\r\n\r\nabc"), "XX", "no Content-Disposition"),
        (form(b"Content-Transfer-Encoding: base64\r\n" + part(b"name=file")), "XX", "Content-Transfer-Encoding"),
        (form(part(b"name=file", b"\n--XXa" * 20_000)), "XX", "use a random boundary"),
    ],
)
def test_a_form_that_cannot_be_parsed_is_refused_with_the_reason(body: bytes, boundary: str, advice: str) -> None:
    with pytest.raises(BadRequest, match=advice) as refused:
        parse_form(body, boundary, max_images=9)
    assert refused.value.code == "malformed_form"


def test_the_number_of_parts_is_limited() -> None:
    parts = [part(b"name=file", json.dumps(number).encode()) for number in range(26)]
    assert len(parse_form(form(*parts[:25]), "XX", max_images=9)) == 25
    with pytest.raises(TooLarge):
        parse_form(form(*parts), "XX", max_images=9)


@pytest.mark.parametrize("newline", [b"\r\n", b"\n", b"\r"])
def test_a_part_is_found_in_the_beginning_of_a_form_only_if_it_is_complete(newline: bytes) -> None:
    data = b"[1]" + newline + b"--X" + newline + b"-- XX"
    body = form(part(b"name=note", b"", newline), part(b'name="metadata"', data, newline), part(b"name=metadata", b"[2]", newline), part(b"name=file"), newline=newline)
    end = body.index(b"--XX" + newline, body.index(data)) + len(b"--XX") + 1
    for cut in range(len(body) + 1):
        assert find_part(body[:cut], "XX", "metadata") == (data if cut >= end else None)
    assert find_part(body, "XX", "other") is None
    assert find_part(body, "", "metadata") is None
    assert find_part(b"--XX\r\nno headers", "XX", "metadata") is None
