"""TLS for `tls://` addresses: the CA that signs the broker's certificate, and a certificate to show
if the broker wants one. The program names the files, or `ISECT_CA`, `ISECT_CERT` and `ISECT_KEY`
do."""

from __future__ import annotations

import hashlib
import os
import ssl

from . import _tables as t
from ._errors import IsectError, error, visible
from ._files import check_private


def from_environment(
    ca: str | None = None, cert: str | None = None, key: str | None = None
) -> tuple[str | None, str | None, str | None]:
    """These files; the environment's for those that are not named. A certificate and its key always
    come from the same place."""
    ca = ca or os.environ.get(t.CA_VARIABLE) or None
    if cert is None and key is None:
        cert = os.environ.get(t.CERT_VARIABLE) or None
        key = os.environ.get(t.KEY_VARIABLE) or None
    return ca, cert, key


def context(ca: str | None, cert: str | None, key: str | None) -> ssl.SSLContext:
    """What a client needs to check the broker's certificate and its host name, and to show its own.
    Raises `ConnectionFailed` (`tls`) that names the file and the cure."""
    if ca is None:
        raise _wrong("'tls://' needs the certificate of the CA that signed the other side's; name "
                     f"its file in {t.CA_VARIABLE} or as ca=")
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        made.load_verify_locations(cafile=ca)
    except ssl.SSLError as why:
        raise _wrong(f"CA file {visible(ca)} has no certificate in PEM form that can be read: "
                     f"{why.reason or why}") from None
    except (OSError, ValueError) as why:
        raise _wrong(f"CA file {visible(ca)}: {getattr(why, 'strerror', None) or why}") from None
    if cert is None and key is None:
        return made
    if cert is None or key is None:
        what, other, where = (("certificate", "key", t.KEY_VARIABLE) if key is None
                              else ("key", "certificate", t.CERT_VARIABLE))
        raise _wrong(f"a {what} needs its {other}; name its file in {where}, or as "
                     f"{'key' if key is None else 'cert'}=")
    why_not = check_private(key)
    if why_not is not None:
        raise _wrong(f"key file {why_not}")
    try:
        made.load_cert_chain(cert, key, password=_no_password)
    except IsectError as why:
        raise _wrong(f"key {visible(key)} {why.text}") from None
    except ssl.SSLError as why:
        if why.reason == "KEY_VALUES_MISMATCH":
            raise _wrong(f"key {visible(key)} is not that of certificate {visible(cert)}; name the "
                         "two that were made together") from None
        raise _wrong(f"certificate {visible(cert)} with key {visible(key)} can't be used: "
                     f"{why.reason or why}") from None
    except (OSError, ValueError) as why:
        raise _wrong(f"certificate {visible(cert)}: "
                     f"{getattr(why, 'strerror', None) or why}") from None
    return made


def _no_password() -> str:
    # OpenSSL would ask at the terminal.
    raise error("tls", "has a password; take it off, or name another key")


def _wrong(text: str) -> IsectError:
    return error("tls", text)


def fault(why: Exception, host: str) -> IsectError:
    """The error of a handshake, or of a connection, that failed."""
    if isinstance(why, ssl.SSLCertVerificationError):
        return error("tls", f"the certificate of {visible(host)} is not trusted: "
                            f"{visible(why.verify_message)}")
    if isinstance(why, ssl.SSLError):
        reason = why.reason or str(why)
        if reason == "WRONG_VERSION_NUMBER":
            reason = "it answers without TLS"
        return error("tls", f"TLS with {visible(host)} failed: {visible(reason)}")
    return error("tls", f"TLS with {visible(host)} failed: {visible(str(why))}")


def host_name(host: str) -> str:
    """The name or address that the certificate has to be for."""
    return host.partition("%")[0]


# The channel binding `tls-server-end-point` (RFC 5929, section 4): the hash of the broker's
# certificate. Which hash it is says the certificate: that of the algorithm it is signed with, and
# SHA-256 in place of MD5 and SHA-1, and for algorithms that name no hash.

_SIGNATURES = {
    "1.2.840.113549.1.1.4": "sha256",
    "1.2.840.113549.1.1.5": "sha256",
    "1.2.840.113549.1.1.14": "sha224",
    "1.2.840.113549.1.1.11": "sha256",
    "1.2.840.113549.1.1.12": "sha384",
    "1.2.840.113549.1.1.13": "sha512",
    "1.2.840.10045.4.1": "sha256",
    "1.2.840.10045.4.3.1": "sha224",
    "1.2.840.10045.4.3.2": "sha256",
    "1.2.840.10045.4.3.3": "sha384",
    "1.2.840.10045.4.3.4": "sha512",
    "1.3.101.112": "sha256",
    "1.3.101.113": "sha256",
}
_PSS = "1.2.840.113549.1.1.10"
#: The hashes that the parameters of RSASSA-PSS may name.
_HASHES = {
    "1.2.840.113549.2.5": "sha256",
    "1.3.14.3.2.26": "sha256",
    "2.16.840.1.101.3.4.2.4": "sha224",
    "2.16.840.1.101.3.4.2.1": "sha256",
    "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
}


def end_point(certificate: bytes) -> str:
    """The hash of a certificate in DER, as hex. Raises `ConnectionFailed` (`unproven`) where there
    is none."""
    try:
        name = _hash_of(certificate)
    except (IndexError, ValueError):
        name = None
    if name is None:
        raise error("unproven", "the broker's certificate is signed in a way that has no "
                                "tls-server-end-point, so no token can be proved on this "
                                "connection; have it signed by RSA, ECDSA or Ed25519")
    return hashlib.new(name, certificate).hexdigest()


def _hash_of(certificate: bytes) -> str | None:
    tag, outer, _ = _element(certificate, 0)
    if tag != 0x30:
        return None
    _, _, at = _element(outer, 0)
    tag, algorithm, _ = _element(outer, at)
    if tag != 0x30:
        return None
    tag, oid, at = _element(algorithm, 0)
    if tag != 0x06:
        return None
    name = _oid(oid)
    if name != _PSS:
        return _SIGNATURES.get(name)
    # RFC 4055, section 3.1: [0] names the hash; without it that is SHA-1.
    tag, parameters, _ = _element(algorithm, at)
    if tag != 0x30:
        return None
    if not parameters or parameters[0] != 0xA0:
        return "sha256"
    _, tagged, _ = _element(parameters, 0)
    _, hash_algorithm, _ = _element(tagged, 0)
    tag, oid, _ = _element(hash_algorithm, 0)
    return _HASHES.get(_oid(oid)) if tag == 0x06 else None


def _element(data: bytes, at: int) -> tuple[int, bytes, int]:
    """An element of DER: its tag, its content, and where the next one begins."""
    tag, size = data[at], data[at + 1]
    at += 2
    if size & 0x80:
        count = size & 0x7F
        size = int.from_bytes(data[at:at + count], "big")
        at += count
    if at + size > len(data):
        raise ValueError("the element is longer than what holds it")
    return tag, data[at:at + size], at + size


def _oid(data: bytes) -> str:
    words = [min(data[0] // 40, 2)]
    words.append(data[0] - 40 * words[0])
    value = 0
    for byte in data[1:]:
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            words.append(value)
            value = 0
    return ".".join(str(word) for word in words)
