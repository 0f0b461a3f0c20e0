"""What a login needs: addresses, tokens and their proof, TLS files, and the watch over silence."""

from __future__ import annotations

import base64
import hashlib
import os
import pickle
import shutil
import ssl
import subprocess
import tempfile
import unittest
from unittest import mock

from isect import _token, _trust
from isect._address import Address, defaults, of_worker, parse
from isect._errors import ConnectionFailed, IsectError, MissingExtra, UsageError
from isect._keepalive import GONE, NOTHING, PING, Keepalive
from isect._token import Prover, Token
from isect._wire import Lines

SECRET = "0123456789abcdef0123456789abcdef"
TOKEN = f"shop.{SECRET}"
#: The example of docs/protocol.md, "Proving a token".
SALTED = bytes.fromhex("7ccc605e420bcbe9706d3fda8bf7405e78f74700a250e1e54817824d9a35d8c5")
OWN = bytes(range(24))
CHALLENGE = [("salt", "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf"), ("memory_kib", "19456"),
             ("passes", "2"), ("lanes", "1"), ("nonce", (OWN + bytes(range(0x40, 0x58))).hex())]
PROOF = "4f07288dcfece426f9eb61c4fb2412d4e078364e228848c11954bd0328aea2de"
SIGNATURE = "515025c45df367f21e941e67180c20aeaff37bba62dc3f94338cfa6ee8ae0df4"

#: The example of "Without the exporter": a certificate that is signed by ECDSA with SHA-384.
CERTIFICATE = base64.b64decode(
    "MIIBdjCCARygAwIBAgIULEjaGcwm4nnYy9tbI0vpCdlH0ZgwCgYIKoZIzj0EAwMw"
    "ETEPMA0GA1UEAwwGYnJva2VyMCAXDTI2MTEzMDEyMTcwNFoYDzIxMjYxMTA2MTIx"
    "NzA0WjARMQ8wDQYDVQQDDAZicm9rZXIwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC"
    "AATZiRQwHdCQ8ZqcwnSeo1HGbSreCHnrlHam9v9bZb0xhhzK5nbJAOndkeQafQQj"
    "sZeNBbUr2qSPnCLJVk8PI5g1o1AwTjAMBgNVHRMBAf8EAjAAMB8GA1UdEQQYMBaC"
    "DmJyb2tlci5leGFtcGxlhwR/AAABMB0GA1UdDgQWBBT1XqNbH3RTzIjwQcNFnOQa"
    "V47PsDAKBggqhkjOPQQDAwNIADBFAiA6ZR6B0FT7UXkIpX3aMDyS7VE7w1nN9/Fb"
    "fCFH1fjohAIhALkhXup/sev09NtryAmVMnaQfBy+hx/6mfCgGSpsfeCy"
)
PROOF_BY_CERTIFICATE = "198332ccd70696542102164f1cc8208771244f49477547937948f71ba1583d7e"
SIGNATURE_BY_CERTIFICATE = "8c909c394a9857ab40a1637c5277e6160f0447787cac216cc903986454904392"

try:
    _token.argon2()
    HAS_ARGON2 = True
except MissingExtra:
    HAS_ARGON2 = False


class _Salted:
    """Stands in for argon2-cffi and knows one hash."""

    class Type:
        ID = 2

    calls = 0

    @classmethod
    def hash_secret_raw(cls, **asked: object) -> bytes:
        cls.calls += 1
        assert asked["secret"] == SECRET.encode() and asked["memory_cost"] == 19456
        return SALTED


class Addresses(unittest.TestCase):
    def test_they_are_read_and_shown_in_one_spelling(self) -> None:
        for given, shown in [
            ("localhost", "localhost:5501"), ("db-7.example:9", "db-7.example:9"),
            ("127.0.0.1:65535", "127.0.0.1:65535"), ("[::1]", "[::1]:5501"),
            ("[::1]:77", "[::1]:77"), ("::1", "[::1]:5501"),
            ("::ffff:192.0.2.1", "192.0.2.1:5501"), ("fe80::1%eth0", "[fe80::1%eth0]:5501"),
            ("unix:/run/isect/client.sock", "unix:/run/isect/client.sock"),
            ("tls://b.example", "tls://b.example:5501"), ("tls://::1", "tls://[::1]:5501"),
            ("tls://127.0.0.1:7", "tls://127.0.0.1:7"),
        ]:
            address = parse(given)
            self.assertEqual(str(address), shown)
            self.assertEqual(parse(shown), address)

    def test_wrong_ones_say_what_is_wrong(self) -> None:
        for given, part in [
            ("", "no host"), (":5501", "no host"), ("a:0", "no port from 1 to 65535"),
            ("a:65536", "no port from 1"), ("a:b", "no port from 1"), ("a:1:2", "more than one"),
            ("a b", "no host name has"), ("http://a", "no host name has"), ("[::1", "without ']'"),
            ("[zz]:1", "no IPv6 address"), ("[::1]7", "goes on after ']'"), ("unix:", "no path"),
            ("unix", "kind of an address"), ("tls://", "no host"), ("127.1", "ends in a number"),
            ("tls://unix:/x", "no host after 'tls://'"), ("tls://tls://a", "no host after"),
            ("ä", "no host name has"), ("a:²", "no port"), ("unix:/\0", "zero byte"),
            ("unix:/" + "p" * 107, "108 bytes, and a socket's has at most 107"),
            ("x" * 254, "254 bytes"),
        ]:
            with self.assertRaises(UsageError, msg=given) as caught:
                parse(given)
            self.assertIn(part, str(caught.exception))

    def test_a_workers_arguments_name_its_broker(self) -> None:
        for host, port, shown in [
            ("localhost", "12417", "localhost:12417"), ("::1", "1", "[::1]:1"),
            ("[::1]", "1", "[::1]:1"), ("unix:/tmp/w", "0", "unix:/tmp/w"),
            ("tls://h", "7", "tls://h:7"), ("tls://2001:db8::7", "7", "tls://[2001:db8::7]:7"),
        ]:
            self.assertEqual(str(of_worker(host, port)), shown)
        for host, port in [("localhost", "0"), ("localhost", "x"), ("a:1", "2")]:
            with self.assertRaises(UsageError):
                of_worker(host, port)

    def test_the_environment_and_the_state_directory(self) -> None:
        with tempfile.TemporaryDirectory() as home:
            environment = {"HOME": home}
            with mock.patch.dict(os.environ, environment, clear=True):
                self.assertEqual(defaults(), [Address("tcp", "127.0.0.1", 5501)])
                directory = os.path.join(home, ".local/state/isect")
                os.makedirs(directory)
                open(os.path.join(directory, "client.sock"), "w").close()
                self.assertEqual([one.kind for one in defaults()], ["unix", "tcp"])
                os.environ["ISECT_HOST"] = "b:7"
                self.assertEqual(defaults(), [Address("tcp", "b", 7)])
                os.environ["ISECT_HOST"] = "b:x"
                with self.assertRaises(UsageError) as caught:
                    defaults()
                self.assertTrue(str(caught.exception).startswith("ISECT_HOST: "))


class Tokens(unittest.TestCase):
    def prove(
        self, challenge: list[tuple[str, str]], certificate: bytes | None = None
    ) -> tuple[Prover, list[tuple[str, str]]]:
        with mock.patch.object(_token, "argon2", lambda: _Salted):
            prover = Prover(Token(TOKEN), "echo", nonce=OWN)
            self.assertEqual(prover.claim(), [("token", "shop"), ("nonce", OWN.hex())])
            return prover, prover.answer(Lines(challenge), certificate)

    def test_the_known_example(self) -> None:
        prover, lines = self.prove(CHALLENGE)
        self.assertEqual(lines, [("proof", PROOF)])
        self.assertTrue(prover.is_proven(SIGNATURE))
        for wrong in ("", SIGNATURE[:-1], SIGNATURE.upper(), "ä", PROOF):
            self.assertFalse(prover.is_proven(wrong))

    def test_the_known_example_without_the_exporter(self) -> None:
        offered = [*CHALLENGE, ("channels", "tls-exporter tls-server-end-point")]
        prover, lines = self.prove(offered, CERTIFICATE)
        self.assertEqual(lines, [("proof", PROOF_BY_CERTIFICATE),
                                 ("channel", "tls-server-end-point")])
        self.assertTrue(prover.is_proven(SIGNATURE_BY_CERTIFICATE))
        self.assertFalse(prover.is_proven(SIGNATURE))

    @unittest.skipUnless(HAS_ARGON2, "argon2-cffi is not installed")
    def test_the_known_example_with_argon2(self) -> None:
        prover = Prover(Token(TOKEN), "echo", nonce=OWN)
        self.assertEqual(prover.answer(Lines(CHALLENGE)), [("proof", PROOF)])
        self.assertTrue(prover.is_proven(SIGNATURE))

    def test_it_is_hashed_once_for_a_salt(self) -> None:
        token = Token(TOKEN)
        with mock.patch.object(_token, "argon2", lambda: _Salted):
            _Salted.calls = 0
            for _ in range(3):
                Prover(token, "echo", nonce=OWN).answer(Lines(CHALLENGE))
            self.assertEqual(_Salted.calls, 1)
            Prover(token, "echo", nonce=OWN).answer(Lines([("salt", "00" * 8), *CHALLENGE[1:]]))
            self.assertEqual(_Salted.calls, 2)

    def test_a_challenge_that_can_not_be_trusted(self) -> None:
        wrong = [
            {"salt": "00"}, {"salt": "0"}, {"salt": "zz" * 8}, {"salt": "00 " * 8},
            {"memory_kib": "65537"}, {"memory_kib": "7"}, {"passes": "0"}, {"passes": "17"},
            {"lanes": "5"}, {"lanes": "4", "memory_kib": "31"},
            {"nonce": OWN.hex()}, {"nonce": (OWN + bytes(15)).hex()},
            {"nonce": ("ff" + OWN.hex()[2:]) + "00" * 16}, {"nonce": "00" * 129},
        ]
        for change in wrong:
            with self.assertRaises(IsectError, msg=str(change)) as caught:
                self.prove([(key, change.get(key, value)) for key, value in CHALLENGE])
            self.assertEqual(caught.exception.name, "unproven", change)
        prover, _ = self.prove(CHALLENGE)
        with self.assertRaises(IsectError):
            prover.answer(Lines(CHALLENGE))

    def test_over_tls_it_is_bound_to_the_certificate(self) -> None:
        offered = [*CHALLENGE, ("channels", "tls-exporter tls-server-end-point x")]
        with mock.patch.object(_trust, "end_point", lambda der: "0a0b"):
            prover, lines = self.prove(offered, b"der")
        self.assertEqual(lines[1], ("channel", "tls-server-end-point"))
        client = _token._hmac(SALTED, b"Client Key")
        statement = ("isect proof 1\nrole client\ntarget echo\ntoken shop\n"
                     + "".join(f"{key} {value}\n" for key, value in CHALLENGE)
                     + "channels tls-exporter tls-server-end-point x\n"
                       "channel tls-server-end-point 0a0b\n").encode()
        mask = _token._hmac(hashlib.sha256(client).digest(), statement)
        self.assertEqual(lines[0][1], bytes(a ^ b for a, b in zip(client, mask)).hex())
        for channels in ("", "tls-exporter", "tls-server-end-points"):
            with self.assertRaises(IsectError) as caught:
                self.prove([*CHALLENGE, ("channels", channels)], b"der")
            self.assertIn("takes no proof by tls-server-end-point", str(caught.exception))

    def test_what_is_no_token_is_refused_and_not_repeated(self) -> None:
        for text in ("", "ops", "ops.short", ".0123456789abcdef", "o ps.0123456789abcdef",
                     "ops.0123456789abcde\x7ff", "1a.0123456789abcdef", "ops.01234567 89abcdef"):
            with self.assertRaises(UsageError, msg=text) as caught:
                Token(text)
            self.assertNotIn("0123456", str(caught.exception))
        self.assertEqual(repr(Token(f" {TOKEN}\n")), "Token(shop.…)")
        self.assertEqual(Token("a.b." + "x" * 256).name, "a.b")
        with self.assertRaises(UsageError):
            Token("ops." + "x" * 257)
        with self.assertRaises(TypeError):
            pickle.dumps(Token(TOKEN))

    def test_files_that_others_can_read_are_refused(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "token")
            with open(path, "w") as file:
                file.write(TOKEN + "\n")
            for mode, fits in ((0o600, True), (0o640, True), (0o400, True), (0o644, False),
                               (0o660, False)):
                os.chmod(path, mode)
                if fits:
                    self.assertEqual(Token.from_file(path).name, "shop")
                else:
                    with self.assertRaises(UsageError) as caught:
                        Token.from_file(path)
                    self.assertIn(f"mode {mode:04o}", str(caught.exception))
            os.chmod(path, 0o600)
            with mock.patch.dict(os.environ, {"ISECT_TOKEN_FILE": path, "ISECT_TOKEN": "x"}):
                token = Token.from_environment()
                self.assertEqual(token and token.name, "shop")
            for wrong in (directory, os.path.join(directory, "none")):
                with mock.patch.dict(os.environ, {"ISECT_TOKEN_FILE": wrong}):
                    with self.assertRaises(UsageError) as caught:
                        Token.from_environment()
                    self.assertIn(wrong, str(caught.exception))
            with open(path, "w") as file:
                file.write("x" * 5000)
            with self.assertRaises(UsageError):
                Token.from_file(path)
        with mock.patch.dict(os.environ, {}, clear=True):
            self.assertIsNone(Token.from_environment())

    def test_without_the_package_the_error_says_what_to_install(self) -> None:
        with mock.patch.dict("sys.modules", {"argon2": None, "argon2.low_level": None}):
            with self.assertRaises(MissingExtra) as caught:
                Prover(Token(TOKEN), "echo")
        self.assertIn("pip install 'isect[tokens]'", str(caught.exception))
        self.assertIsInstance(caught.exception, ImportError)


@unittest.skipUnless(shutil.which("openssl"), "there is no openssl")
class Certificates(unittest.TestCase):
    directory: str

    @classmethod
    def setUpClass(cls) -> None:
        cls.directory = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, cls.directory)

    def make(self, name: str, *options: str) -> tuple[str, str]:
        cert, key = (os.path.join(self.directory, f"{name}.{end}") for end in ("pem", "key"))
        subprocess.run(["openssl", "req", "-x509", "-nodes", "-subj", "/CN=b", "-out", cert,
                        "-keyout", key, *options], check=True, stdin=subprocess.DEVNULL,
                       capture_output=True)
        os.chmod(key, 0o600)
        return cert, key

    def test_the_hash_of_a_certificate_is_that_of_its_signature(self) -> None:
        ec = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
        rsa = ("-newkey", "rsa:2048")
        pss = ("-sigopt", "rsa_padding_mode:pss")
        for at, (options, expected) in enumerate([
            ((*ec, "-sha256"), "sha256"), ((*ec, "-sha384"), "sha384"),
            ((*ec, "-sha512"), "sha512"),
            ((*rsa, "-sha256"), "sha256"), ((*rsa, "-sha512"), "sha512"),
            ((*rsa, "-sha384", *pss), "sha384"), (("-newkey", "ed25519"), "sha256"),
        ]):
            cert, _ = self.make(f"c{at}", *options)
            with open(cert) as file:
                der = ssl.PEM_cert_to_DER_cert(file.read())
            self.assertEqual(_trust.end_point(der), hashlib.new(expected, der).hexdigest(), options)
            for broken in (b"", der[:20], der[:-40], b"\x30\x00", b"x" * 99):
                with self.assertRaises(IsectError):
                    _trust.end_point(broken)

    def test_files_are_named_in_errors(self) -> None:
        cert, key = self.make("own", "-newkey", "rsa:2048")
        other, other_key = self.make("other", "-newkey", "rsa:2048")
        locked = os.path.join(self.directory, "locked.key")
        subprocess.run(["openssl", "pkey", "-in", key, "-aes256", "-passout", "pass:xxxx", "-out",
                        locked], check=True, capture_output=True)
        os.chmod(locked, 0o600)
        loose = os.path.join(self.directory, "loose.key")
        shutil.copy(key, loose)
        os.chmod(loose, 0o644)
        none = os.path.join(self.directory, "none")
        _trust.context(cert, cert, key)
        for ca, own, own_key, parts in [
            (None, None, None, ("ISECT_CA",)), (none, None, None, (none, "No such file")),
            (key, None, None, (key, "no certificate")), (cert, cert, None, ("ISECT_KEY",)),
            (cert, None, key, ("ISECT_CERT",)), (cert, cert, other_key, (other_key, "not that of")),
            (cert, cert, loose, (loose, "mode 0644")), (cert, cert, locked, (locked, "password")),
            (cert, none, key, (none,)), (cert, key, key, (key,)),
        ]:
            with self.assertRaises(ConnectionFailed) as caught:
                _trust.context(ca, own, own_key)
            self.assertEqual(caught.exception.name, "tls")
            for part in parts:
                self.assertIn(part, caught.exception.text)
        self.assertTrue(other)

    def test_the_environment_names_files(self) -> None:
        names = {"ISECT_CA": "ca", "ISECT_CERT": "cert", "ISECT_KEY": "key"}
        with mock.patch.dict(os.environ, names):
            self.assertEqual(_trust.from_environment(), ("ca", "cert", "key"))
            self.assertEqual(_trust.from_environment("x", "y"), ("x", "y", None))


class Silence(unittest.TestCase):
    def test_a_silent_broker_is_pinged_and_gone_when_the_silence_is_over(self) -> None:
        one = Keepalive(3000)
        self.assertAlmostEqual(one.span(0) or 0, 1.2)
        self.assertEqual(one.quiet(1.199, 1.199), NOTHING)
        self.assertEqual(one.quiet(1.2, 0.001), PING)
        one.pinged(1.2)
        self.assertAlmostEqual(one.span(1.3) or 0, 1.7)
        self.assertEqual(one.quiet(2.999, 0.01), NOTHING)
        self.assertEqual(one.quiet(3.0, 0.001), GONE)

    def test_whatever_comes_begins_it_anew(self) -> None:
        one = Keepalive(3000)
        self.assertEqual(one.quiet(2, 2), PING)
        one.pinged(2)
        one.heard()
        self.assertAlmostEqual(one.span(2) or 0, 1.2)
        self.assertEqual(one.quiet(4, 0.5), NOTHING)

    def test_a_program_that_was_stopped_itself_blames_nobody(self) -> None:
        one = Keepalive(3000)
        self.assertEqual(one.quiet(1.2, 1.2), PING)
        one.pinged(1.2)
        self.assertAlmostEqual(one.span(1.2) or 0, 1.8)
        self.assertEqual(one.quiet(61.2, 1.8), NOTHING)

    def test_a_broker_that_names_no_silence_is_never_gone(self) -> None:
        one = Keepalive()
        self.assertIsNone(one.span(0))
        self.assertEqual(one.quiet(1e9, 1e9), NOTHING)


if __name__ == "__main__":
    unittest.main()
