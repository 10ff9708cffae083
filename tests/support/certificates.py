"""Certificates for tests."""

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Certificate:
    """The files of a certificate that its own key has signed, and of this key, in PEM format."""

    certificate: Path
    key: Path


def make_certificate(folder: Path, names: str) -> Certificate:
    """Make a certificate that is valid for two days.

    :param names: the names for which it is valid, in OpenSSL's syntax, such as ``DNS:localhost,IP:127.0.0.1``.
    """
    made = Certificate(folder / "cert.pem", folder / "key.pem")
    command = ["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "2", "-subj", "/CN=test"]
    files: list[str | Path] = ["-keyout", made.key, "-out", made.certificate]
    subprocess.run([*command, "-addext", f"subjectAltName={names}", *files], check=True, capture_output=True, timeout=120)
    return made
