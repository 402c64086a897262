"""Signed notes (C2SP signed-note v1.0.0, Ed25519): text and signatures; signer and verifier keys.

Keys are encoded like those of Go's golang.org/x/mod/sumdb/note, so Go tools can read them. Only `Signer.secret_text`
reveals a private key. `Verifier` and `open_note` are also for auditors: `docs/guides/auditors.md` shows how.
"""

import base64
import binascii
import re
from collections.abc import Iterable
from hashlib import sha256

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ledger.domain.errors import LedgerError

NOTE_BYTES_MAX = 1_000_000
SIGNATURES_MAX = 100
"""Limits on the work that an untrusted note can cause; the same as in Go's sumdb/note."""

_ED25519 = b"\x01"
_KEY_BYTES = 32
_KEY_ID_BYTES = 4
_KEY_ID = re.compile("[0-9a-f]{8}")
_CONTROL = re.compile(r"[\x00-\x1f]")


class NoteError(LedgerError, ValueError):
    """A note or a key cannot be read, or a note lacks a valid signature."""


def decode_base64(text: str) -> bytes:
    """Decode standard base64 (RFC 4648, section 4) in its canonical form.

    Raises:
        ValueError: the text is anything else. Python's decoder alone accepts any value of the unused last bits.
    """
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("not base64") from None
    if encode_base64(value) != text:
        raise ValueError("not base64 in its canonical form")
    return value


def encode_base64(value: bytes) -> str:
    """Encode as standard base64 (RFC 4648, section 4)."""
    return base64.b64encode(value).decode()


class Verifier(msgspec.Struct, frozen=True):
    """A public key (32 bytes) and its name."""

    name: str
    public_key: bytes

    @classmethod
    def parse(cls, text: str) -> "Verifier":
        """Parse a verifier key (vkey): `<name>+<key id in hex>+<base64 of 0x01 and the public key>`.

        Raises:
            NoteError: the text is not a verifier key.
        """
        name, key_id, public_key = _read_key(text.split("+", 2), "a verifier key: <name>+<key id>+<base64>")
        verifier = cls(name, public_key)
        _check_key_id(verifier, key_id)
        return verifier

    @property
    def key_id(self) -> bytes:
        """The key id: four bytes that distinguish keys with the same name."""
        return sha256(self.name.encode() + b"\n" + _ED25519 + self.public_key).digest()[:_KEY_ID_BYTES]

    @property
    def label(self) -> str:
        """The name and the key id: how messages refer to the key."""
        return f"{self.name}+{self.key_id.hex()}"

    @property
    def text(self) -> str:
        """The verifier key (vkey) as text."""
        return f"{self.label}+{encode_base64(_ED25519 + self.public_key)}"


class Signer:
    """A private key and its name. Create one with `generate` or `parse`."""

    __slots__ = ("_private_key", "verifier")

    verifier: Verifier
    """The public key."""

    def __init__(self, name: str, seed: bytes) -> None:
        _check_name(name)
        self._private_key = Ed25519PrivateKey.from_private_bytes(seed)
        self.verifier = Verifier(name, self._private_key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls, name: str) -> "Signer":
        """Generate a new key.

        Raises:
            NoteError: the name is empty, or contains white space or a plus sign.
        """
        return cls(name, Ed25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def parse(cls, text: str) -> "Signer":
        """Parse a signer key: `PRIVATE+KEY+<name>+<key id in hex>+<base64 of 0x01 and the seed>`.

        Raises:
            NoteError: the text is not a signer key.
        """
        shape = "a signer key: PRIVATE+KEY+<name>+<key id>+<base64>"
        parts = text.split("+", 4)
        if parts[:2] != ["PRIVATE", "KEY"]:
            raise NoteError(f"this is not {shape}")
        name, key_id, seed = _read_key(parts[2:], shape)
        signer = cls(name, seed)
        _check_key_id(signer.verifier, key_id)
        return signer

    def renamed(self, name: str) -> "Signer":
        """Return the same key under another name.

        Raises:
            NoteError: the name is empty, or contains white space or a plus sign.
        """
        return Signer(name, self._private_key.private_bytes_raw())

    def secret_text(self) -> str:
        """Return the private key as text, to be stored in its file."""
        return f"PRIVATE+KEY+{self.verifier.label}+{encode_base64(_ED25519 + self._private_key.private_bytes_raw())}"

    def signature(self, message: bytes) -> bytes:
        """Return the Ed25519 signature (64 bytes) of a message."""
        return self._private_key.sign(message)

    def __repr__(self) -> str:
        return f"<Signer {self.verifier.label}>"


def sign(text: str, signer: Signer) -> bytes:
    """Return a note: the text and its signature.

    Raises:
        NoteError: the text does not end with a newline, or contains other control characters.
    """
    signed = text.encode()
    _check_text(text)
    signature = encode_base64(signer.verifier.key_id + signer.signature(signed))
    return signed + f"\n— {signer.verifier.name} {signature}\n".encode()


def open_note(note: bytes, verifiers: Iterable[Verifier]) -> str:
    """Verify a note and return its text. Signatures by keys that are not among `verifiers` are ignored.

    Raises:
        NoteError: this is not a note, none of the keys has signed it, or a signature by one of them is wrong.
    """
    text, signatures = _split(note)
    verifiers_by_label = {verifier.label: verifier for verifier in verifiers}
    verified = False
    for label, signature in signatures:
        verifier = verifiers_by_label.get(label)
        if verifier is None:
            continue
        try:
            Ed25519PublicKey.from_public_bytes(verifier.public_key).verify(signature, text.encode())
        except InvalidSignature:
            raise NoteError(f"the signature by {label} is wrong: the text or the signature has been changed") from None
        verified = True
    if not verified:
        signed_by = ", ".join(label for label, _ in signatures)
        expected = " or ".join(verifiers_by_label) or "none"
        raise NoteError(f"signed by {signed_by}, but the key given is {expected}")
    return text


def _split(note: bytes) -> tuple[str, list[tuple[str, bytes]]]:
    """Return the text of a note, and its signatures as pairs of key label and signature, not yet verified."""
    if len(note) > NOTE_BYTES_MAX:
        raise NoteError(f"a note has at most {NOTE_BYTES_MAX} bytes, not {len(note)}")
    try:
        decoded = note.decode()
    except UnicodeDecodeError:
        raise NoteError("the note is not UTF-8") from None
    _check_text(decoded)
    text, separator, rest = decoded.rpartition("\n\n")
    lines = rest.split("\n")[:-1]
    if not separator or not lines:
        raise NoteError("this is not a signed note, which is a text, an empty line and signatures")
    if len(lines) > SIGNATURES_MAX:
        raise NoteError(f"a note has at most {SIGNATURES_MAX} signatures, not {len(lines)}")
    return text + "\n", [_read_signature(line) for line in lines]


def _read_signature(line: str) -> tuple[str, bytes]:
    dash, _, rest = line.partition(" ")
    name, _, encoded = rest.partition(" ")
    try:
        value = decode_base64(encoded)
    except ValueError:
        value = b""
    if dash != "—" or len(value) <= _KEY_ID_BYTES:
        raise NoteError(f"a signature line is an em dash, a name and base64, not {line!r}")
    _check_name(name)
    return f"{name}+{value[:_KEY_ID_BYTES].hex()}", value[_KEY_ID_BYTES:]


def _read_key(parts: list[str], shape: str) -> tuple[str, str, bytes]:
    # The message never repeats the input, which may be a private key.
    if len(parts) != 3 or not _KEY_ID.fullmatch(parts[1]):
        raise NoteError(f"this is not {shape}")
    try:
        key = decode_base64(parts[2])
    except ValueError:
        raise NoteError(f"this is not {shape}") from None
    if len(key) != 1 + _KEY_BYTES or not key.startswith(_ED25519):
        raise NoteError(f"this is not {shape}, of an Ed25519 key")
    _check_name(parts[0])
    return parts[0], parts[1], key[1:]


def _check_key_id(verifier: Verifier, key_id: str) -> None:
    if verifier.key_id.hex() != key_id:
        raise NoteError(f"the key id {key_id} does not match this name and key: expected {verifier.label}")


def _check_name(name: str) -> None:
    if not name or "+" in name or any(character.isspace() or character < " " for character in name):
        raise NoteError(f"a key's name must not be empty or contain white space or a plus sign: {name!r}")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise NoteError("a key's name must be valid Unicode") from None


def _check_text(text: str) -> None:
    if not text.endswith("\n"):
        raise NoteError("a note must end with a newline")
    if _CONTROL.search(text.replace("\n", "")):
        raise NoteError("a note must not contain control characters other than newlines")
