"""Signed URLs: what a signature covers, for how long, and that nothing else is accepted."""

from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.accounts.signed_urls import UrlSigner
from shared.accounts.signing_keys import FixedSigningKeys

OLD, NEW = b"0123456789abcdefghijklmnopqrstuv", b"zyxwvutsrqponmlkjihgfedcba987654"
NOW = 1_800_000_123
IMAGE = f"/uploads/{'0' * 36}"


def make_signer(*, now: float = NOW, lifetime_s: int = 3600, **secrets: bytes) -> UrlSigner:
    return UrlSigner(FixedSigningKeys(secrets or {"new": NEW}), lifetime_s, lambda: now)


def sign(signer: UrlSigner, resource: str = IMAGE) -> tuple[str, str]:
    """Return the signature and the time of expiry in the URL of a resource."""
    query = signer.begin().query(resource)
    assert query.startswith("?")
    values = parse_qs(query[1:], strict_parsing=True)
    assert list(values) == ["signature", "expires"]
    return values["signature"][0], values["expires"][0]


def test_a_signature_is_valid_for_its_resource_until_it_expires() -> None:
    signature, expires = sign(make_signer())
    assert make_signer().is_valid(IMAGE, signature, expires)
    assert make_signer(now=int(expires) - 1).is_valid(IMAGE, signature, expires)
    assert not make_signer(now=int(expires)).is_valid(IMAGE, signature, expires)


def test_a_known_value_that_openssl_computes_too() -> None:
    signer = make_signer(new=b"k" * 32)
    assert sign(signer) == ("7fc6fcc7c3a93df20c08445b69fdead77c9dc7eec9a48b959631f63f088ad7db", "1800005400")


@given(now=st.integers(0, 10**11), lifetime_s=st.integers(60, 604_800))
def test_a_url_is_valid_for_its_lifetime_and_at_most_half_as_long_again(now: int, lifetime_s: int) -> None:
    _, expires = sign(make_signer(now=now, lifetime_s=lifetime_s))
    assert lifetime_s < int(expires) - now <= lifetime_s + max(1, lifetime_s // 2)


def test_urls_stay_equal_for_half_an_hour_so_that_browsers_can_cache_the_files() -> None:
    begin = NOW - NOW % 1800
    assert {sign(make_signer(now=begin + seconds)) for seconds in (0, 1, 900, 1799.9)} == {sign(make_signer(now=begin))}
    assert sign(make_signer(now=begin + 1800)) != sign(make_signer(now=begin))


def test_other_resources_times_and_keys_are_refused() -> None:
    signature, expires = sign(make_signer())
    signer = make_signer()
    assert not signer.is_valid(IMAGE[:-1] + "1", signature, expires)
    assert not signer.is_valid(f"/pictures/{'0' * 32}", signature, expires)
    assert not signer.is_valid(IMAGE, signature, str(int(expires) + 1))
    assert not signer.is_valid(IMAGE, signature, f"0{expires}")
    assert not make_signer(other=OLD).is_valid(IMAGE, signature, expires)


def test_all_keys_are_accepted_during_a_rotation_and_the_first_one_signs() -> None:
    old, both, new = make_signer(old=OLD), make_signer(new=NEW, old=OLD), make_signer(new=NEW)
    assert both.is_valid(IMAGE, *sign(old))
    assert sign(both) == sign(new)
    assert new.is_valid(IMAGE, *sign(both))
    assert not new.is_valid(IMAGE, *sign(old))


def test_a_changed_signature_is_refused() -> None:
    signature, expires = sign(make_signer())
    for changed in (signature[:-1], f"{signature}0", signature.upper(), f" {signature}", f"{signature}\n", "", "é" * 64):
        assert not make_signer().is_valid(IMAGE, changed, expires), changed


@given(st.text(), st.text())
def test_any_text_is_refused_without_an_error(signature: str, expires: str) -> None:
    assert not make_signer().is_valid(IMAGE, signature, expires)


@pytest.mark.parametrize("expires", ["-1", "1e10", "0x7fffffff", "٢٠٠٠٠٠٠٠٠٠", "9" * 13, "9" * 5000, "inf", "1800005400.0", "+1800005400"])
def test_a_time_in_another_form_is_refused(expires: str) -> None:
    signer = make_signer()
    assert not signer.is_valid(IMAGE, sign(signer)[0], expires)
