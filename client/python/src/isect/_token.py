"""Tokens: a name and a secret, and the proof that this side knows it (docs/protocol.md, "Proving a
token"). It is SCRAM (RFC 5802) with Argon2id, which the package `argon2-cffi` computes."""

from __future__ import annotations

import hashlib
import hmac
import os
from importlib import import_module
from typing import Any

from . import _tables as t
from ._errors import IsectError, MissingExtra, error
from ._files import read_private
from ._wire import Lines

SECRET_MIN = 16
SECRET_MAX = 256
FILE_BYTES_MAX = 4096
NONCE_BYTES = 24
#: Least bytes that the verifier adds to the nonce.
NONCE_BYTES_MIN = 16

#: The name of the only binding that Python's TLS can compute.
END_POINT = "tls-server-end-point"

_FORM = "a token is one line, NAME.SECRET, as 'isectd token add' prints it"


class Token:
    """A name and a secret. It is proved to the broker without being sent, and shows itself
    nowhere."""

    __slots__ = ("name", "_secret", "_hashed")

    def __init__(self, text: str) -> None:
        """Reads `NAME.SECRET`. Raises `UsageError`, which does not repeat the text."""
        name, dot, secret = text.strip().rpartition(".")
        if not dot or not _is_name(name):
            raise _usage(_FORM)
        if not SECRET_MIN <= len(secret) <= SECRET_MAX:
            raise _usage(f"the secret of token '{name}' has {len(secret)} letters, and must have "
                         f"{SECRET_MIN} to {SECRET_MAX}")
        if not all("!" <= ch <= "~" for ch in secret):
            raise _usage(_FORM)
        self.name = name
        self._secret = secret.encode()
        #: What the secret was hashed with last, and the keys.
        self._hashed: tuple[object, bytes, bytes] | None = None

    def __repr__(self) -> str:
        return f"Token({self.name}.…)"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a token is not written anywhere")

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Token:
        """Reads a file with a token. Only its owner, who must be this user or root, may write it,
        and only the owner and its group may read it. Raises `UsageError`."""
        text, wrong = read_private(os.fspath(path), FILE_BYTES_MAX)
        if wrong is not None:
            raise _usage(f"token file {wrong}")
        try:
            return cls(text)
        except IsectError as why:
            why.text = f"token file {os.fspath(path)}: {why.text}"
            raise

    @classmethod
    def from_environment(cls) -> Token | None:
        """The token of the environment: `ISECT_TOKEN_FILE` names a file, otherwise `ISECT_TOKEN` is
        the token itself; None = neither is set. Raises `UsageError`."""
        variable = t.TOKEN_FILE_VARIABLE
        try:
            path = os.environ.get(variable)
            if path:
                return cls.from_file(path)
            variable = t.TOKEN_VARIABLE
            text = os.environ.get(variable)
            return cls(text) if text else None
        except IsectError as why:
            why.context = variable
            raise

    def keys(self, salt: bytes, memory_kib: int, passes: int, lanes: int) -> tuple[bytes, bytes]:
        """The client key and the server key; hashing takes some hundredths of a second, and is done
        once for a salt and a cost."""
        made = (salt, memory_kib, passes, lanes)
        known = self._hashed
        if known is not None and known[0] == made:
            return known[1], known[2]
        low_level = argon2()
        salted = low_level.hash_secret_raw(
            secret=self._secret, salt=salt, time_cost=passes, memory_cost=memory_kib,
            parallelism=lanes, hash_len=32, type=low_level.Type.ID, version=0x13)
        client = _hmac(salted, b"Client Key")
        server = _hmac(salted, b"Server Key")
        self._hashed = (made, client, server)
        return client, server


def argon2() -> Any:
    """The module that computes Argon2id. Raises `MissingExtra`."""
    try:
        return import_module("argon2.low_level")
    except ImportError as why:
        raise MissingExtra("usage", "a token can't be proved, because the package argon2-cffi is "
                           f"not installed ({why})", advice="pip install 'isect[tokens]'") from None


class Prover:
    """The proof of one login. `claim` gives lines of the login, `answer` those of the proof, and
    `is_proven` compares what the broker proves in return."""

    __slots__ = ("_token", "_role", "_target", "_nonce", "_signature", "_is_used")

    def __init__(
        self, token: Token, target: str, role: str = "client", nonce: bytes | None = None
    ) -> None:
        """`target` is the service of the login. Raises `MissingExtra` before anything is sent."""
        argon2()
        self._token = token
        self._role = role
        self._target = target
        self._nonce = os.urandom(NONCE_BYTES) if nonce is None else nonce
        self._signature = b""
        self._is_used = False

    def claim(self) -> list[tuple[str, str]]:
        """The lines of the login."""
        return [("token", self._token.name), ("nonce", self._nonce.hex())]

    def answer(self, challenge: Lines, certificate: bytes | None = None) -> list[tuple[str, str]]:
        """The lines of the proof. `certificate` is the broker's, in DER, if the connection has TLS:
        the proof is bound to it. Takes some hundredths of a second; an event loop runs it in a
        thread. Raises `Refused` (`unproven`) if the challenge can't be trusted."""
        if self._is_used:
            raise _unproven("a second challenge came in one login")
        self._is_used = True
        salt = _bytes_of(challenge, "salt", 8, 64)
        nonce = _bytes_of(challenge, "nonce", 32, 128)
        memory_kib = _cost(challenge, "memory_kib", 8, 65536)
        passes = _cost(challenge, "passes", 1, 16)
        lanes = _cost(challenge, "lanes", 1, 4)
        if memory_kib < 8 * lanes:
            raise _unproven(f"memory_kib is {memory_kib}; {lanes} lanes need {8 * lanes}")
        own = len(self._nonce)
        if nonce[:own] != self._nonce or len(nonce) - own < NONCE_BYTES_MIN:
            raise _unproven("the challenge does not go on from the nonce of this login")
        statement = (f"isect proof 1\nrole {self._role}\ntarget {self._target}\n"
                     f"token {self._token.name}\nsalt {salt.hex()}\nmemory_kib {memory_kib}\n"
                     f"passes {passes}\nlanes {lanes}\nnonce {nonce.hex()}\n")
        lines: list[tuple[str, str]] = []
        if certificate is not None:
            from ._trust import end_point

            channels = challenge.get("channels")
            if END_POINT not in channels.split(" "):
                raise _unproven(f"the broker takes no proof by {END_POINT} (it names: "
                                f"{channels or 'none'}), and Python's TLS has no other; connect "
                                "without TLS on the broker's machine, or have the operator allow "
                                "it (docs/security.md)")
            statement += f"channels {channels}\nchannel {END_POINT} {end_point(certificate)}\n"
            lines.append(("channel", END_POINT))
        client, server = self._token.keys(salt, memory_kib, passes, lanes)
        text = statement.encode()
        mask = _hmac(hashlib.sha256(client).digest(), text)
        proof = bytes(one ^ other for one, other in zip(client, mask))
        self._signature = _hmac(server, text)
        return [("proof", proof.hex()), *lines]

    def is_proven(self, signature: str) -> bool:
        """Whether the broker has proved that it knows the token, too."""
        return bool(self._signature) and hmac.compare_digest(self._signature.hex().encode(),
                                                             signature.encode())


def _hmac(key: bytes, text: bytes) -> bytes:
    return hmac.new(key, text, hashlib.sha256).digest()


def _is_name(name: str) -> bool:
    return (0 < len(name) <= t.NAME_BYTES_MAX and name.isascii() and name[0].isalpha()
            and all(ch.isalnum() or ch in "-_." for ch in name))


def _bytes_of(challenge: Lines, key: str, least: int, most: int) -> bytes:
    text = challenge.get(key)
    if len(text) % 2 or not set(text) <= set("0123456789abcdefABCDEF") \
            or not least <= len(text) // 2 <= most:
        raise _unproven(f"the {key} of the challenge is not {least} to {most} bytes as hex")
    return bytes.fromhex(text)


def _cost(challenge: Lines, key: str, least: int, most: int) -> int:
    value = challenge.number(key)
    if not least <= value <= most:
        raise _unproven(f"the challenge asks for {key} {value}; it is {least} to {most}")
    return value


def _unproven(text: str) -> IsectError:
    return error("unproven", text)


def _usage(text: str) -> IsectError:
    return error("usage", text, advice="'isectd token add NAME --role …' makes a token")
