"""Signed notes: compatible with Go's sumdb/note; every change is detected."""

import base64
import pickle
import traceback

import pytest

from ledger.audit.note import NoteError, Signer, Verifier, decode_base64, open_note, sign

# The example of golang.org/x/mod/sumdb/note.
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
NOTE = (
    TEXT
    + "\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
).encode()
VERIFIER_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
SIGNER_KEY = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
NAME = "ledger.local/log"


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer.generate(NAME)


def encoded(value: bytes) -> str:
    return base64.b64encode(value).decode()


def test_the_note_of_the_go_example_is_opened() -> None:
    assert open_note(NOTE, [Verifier.parse(VERIFIER_KEY)]) == TEXT


def test_signing_gives_the_note_of_the_go_example_byte_for_byte() -> None:
    assert sign(TEXT, Signer.parse(SIGNER_KEY)) == NOTE


def test_the_keys_of_the_go_example_are_written_as_they_were_parsed() -> None:
    signer = Signer.parse(SIGNER_KEY)

    assert Verifier.parse(VERIFIER_KEY).text == VERIFIER_KEY
    assert signer.verifier.text == VERIFIER_KEY
    assert signer.secret_text() == SIGNER_KEY


def test_a_new_key_can_sign_and_be_parsed_again(signer: Signer) -> None:
    again = Signer.parse(signer.secret_text())

    note = sign("hello\n\nworld\n", again)

    assert open_note(note, [Verifier.parse(signer.verifier.text)]) == "hello\n\nworld\n"
    assert signer.verifier.name == NAME
    assert Signer.generate(NAME).verifier != signer.verifier


@pytest.mark.parametrize("text", ["\n", "a\n\n", "\n\n\n", "ed è subito sera.\n", "a\n\n— b Yg==\n"])
def test_any_text_that_ends_with_a_newline_can_be_signed(text: str, signer: Signer) -> None:
    assert open_note(sign(text, signer), [signer.verifier]) == text


@pytest.mark.parametrize("text", ["", "a", "a\nb", "a\r\n", "a\tb\n", "\0\n", "\x1f\n"])
def test_no_other_text_can_be_signed(text: str, signer: Signer) -> None:
    with pytest.raises(NoteError):
        sign(text, signer)


@pytest.mark.parametrize("bit", [0x01, 0x10, 0x20, 0x80])
def test_every_changed_byte_of_a_note_is_detected(bit: int) -> None:
    verifier = Verifier.parse(VERIFIER_KEY)

    for at in range(len(NOTE)):
        changed = NOTE[:at] + bytes([NOTE[at] ^ bit]) + NOTE[at + 1 :]
        with pytest.raises(NoteError):
            open_note(changed, [verifier])


def test_every_shortened_or_lengthened_note_is_refused() -> None:
    verifier = Verifier.parse(VERIFIER_KEY)

    for length in range(len(NOTE)):
        with pytest.raises(NoteError):
            open_note(NOTE[:length], [verifier])
    for changed in (NOTE + b"\n", NOTE + b"x", NOTE + b"x\n", b"x" + NOTE, b"\n" + NOTE):
        with pytest.raises(NoteError):
            open_note(changed, [verifier])


def test_the_error_for_another_key_names_both_keys(signer: Signer) -> None:
    given = Signer.generate(NAME).verifier

    with pytest.raises(NoteError) as refused:
        open_note(sign("a\n", signer), [given])

    assert str(refused.value) == f"signed by {signer.verifier.label}, but the key given is {given.label}"
    assert signer.verifier.label.startswith("ledger.local/log+")


def test_a_note_opened_with_no_key_is_refused() -> None:
    with pytest.raises(NoteError, match="the key given is none"):
        open_note(NOTE, [])


def test_signatures_by_unknown_keys_are_ignored_if_a_known_key_has_signed(signer: Signer) -> None:
    # A witness key has another signature type and length; its name may be the same as ours.
    unknown = f"— {NAME} {encoded(b'1234' + b'x' * 72)}\n— witness.example/w1 {encoded(b'1234x')}\n".encode()
    note = sign("a\n", signer)

    assert open_note(note + unknown, [signer.verifier]) == "a\n"
    assert open_note(note.replace("— ".encode(), unknown + "— ".encode()), [signer.verifier]) == "a\n"
    with pytest.raises(NoteError, match=r"signed by ledger.local/log\+31323334, witness.example/w1\+31323334, but"):
        open_note(b"a\n\n" + unknown, [signer.verifier])


def test_one_wrong_signature_by_a_known_key_refuses_the_note(signer: Signer) -> None:
    other = Signer.generate("example.com/other")
    wrong = sign("b\n", other).partition(b"\n\n")[2]
    note = sign("a\n", signer) + wrong

    assert open_note(note, [signer.verifier]) == "a\n"
    with pytest.raises(NoteError, match=rf"the signature by example.com/other\+{other.verifier.key_id.hex()} is wrong"):
        open_note(note, [signer.verifier, other.verifier])


def test_either_of_two_keys_is_enough(signer: Signer) -> None:
    other = Signer.generate("example.com/other")

    assert open_note(sign("a\n", signer), [other.verifier, signer.verifier]) == "a\n"


def test_a_signature_of_the_wrong_length_by_a_known_key_is_wrong(signer: Signer) -> None:
    line = f"— {NAME} {encoded(signer.verifier.key_id + b'short')}\n".encode()

    with pytest.raises(NoteError, match="is wrong"):
        open_note(b"a\n\n" + line, [signer.verifier])


@pytest.mark.parametrize(
    "line",
    [
        "",
        "PeterNeumann x08go/ZJ",
        "- PeterNeumann x08go/ZJ",
        "– PeterNeumann x08go/ZJ",
        "—PeterNeumann x08go/ZJ",
        "— PeterNeumann",
        "— PeterNeumann ",
        "— x08go/ZJ",
        "—  x08go/ZJ",
        "— Peter Neumann x08go/ZJ",
        "— Peter+Neumann x08go/ZJ",
        "— Peter\u00a0Neumann x08go/ZJ",
        "— PeterNeumann  x08go/ZJ",
        "— PeterNeumann x08go/ZJ ",
        # A key id alone is not a signature.
        "— PeterNeumann x08gow==",
        "— witness.example x08gow==",
        "— PeterNeumann x08go_ZJ",
        "— PeterNeumann x08go/Z",
        # The same bytes as x08go/Y=, written with other unused bits.
        "— PeterNeumann x08go/Z=",
        "— PeterNeumann x08go/ZJ\r",
    ],
)
def test_a_note_with_a_malformed_signature_line_is_refused(line: str) -> None:
    assert open_note(NOTE + "— PeterNeumann aaaaaaaa\n".encode(), [Verifier.parse(VERIFIER_KEY)]) == TEXT
    with pytest.raises(NoteError):
        open_note(NOTE + f"{line}\n".encode(), [Verifier.parse(VERIFIER_KEY)])


def test_a_note_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(NoteError, match="UTF-8"):
        open_note(b"\xff" + NOTE, [Verifier.parse(VERIFIER_KEY)])


def test_the_size_and_signatures_of_a_note_are_limited(signer: Signer) -> None:
    note = sign("a\n", signer)
    line = f"— unknown {encoded(b'1234x')}\n".encode()

    assert open_note(note + line * 99, [signer.verifier]) == "a\n"
    with pytest.raises(NoteError, match="not 101"):
        open_note(note + line * 100, [signer.verifier])
    with pytest.raises(NoteError, match="1000000 bytes"):
        open_note(sign("a" * 1_000_000 + "\n", signer), [signer.verifier])


PUBLIC = base64.b64decode(VERIFIER_KEY.split("+", 2)[2])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "PeterNeumann",
        "PeterNeumann+c74f20a3",
        "PeterNeumann+c74f20a3+",
        VERIFIER_KEY + "\n",
        VERIFIER_KEY + "+x",
        VERIFIER_KEY.replace("c74f20a3", "c74f20a4"),
        VERIFIER_KEY.replace("c74f20a3", "C74F20A3"),
        VERIFIER_KEY.replace("c74f20a3", "c74f20"),
        VERIFIER_KEY.replace("PeterNeumann", "PeterNewman"),
        VERIFIER_KEY.replace("PeterNeumann", ""),
        f"PeterNeumann+c74f20a3+{encoded(PUBLIC[:-1])}",
        f"PeterNeumann+c74f20a3+{encoded(PUBLIC + b'x')}",
        # A witness key (0x04), which has another kind of signature.
        f"PeterNeumann+c74f20a3+{encoded(bytes([4]) + PUBLIC[1:])}",
        SIGNER_KEY,
    ],
)
def test_a_malformed_verifier_key_is_refused(text: str) -> None:
    with pytest.raises(NoteError):
        Verifier.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "PRIVATE+KEY",
        "PRIVATE+KEY+PeterNeumann+c74f20a3",
        "PRIVATE+KEY+PeterNeumann+c74f20a3+",
        VERIFIER_KEY,
        SIGNER_KEY.lower(),
        SIGNER_KEY + "\n",
        SIGNER_KEY + "A",
        SIGNER_KEY[:-4],
        SIGNER_KEY.replace("c74f20a3", "c74f20a4"),
        SIGNER_KEY.replace("PeterNeumann", "Peter Neumann"),
        SIGNER_KEY.replace("PRIVATE+KEY+", "PRIVATE+"),
        SIGNER_KEY.removeprefix("PRIVATE+KEY+"),
        SIGNER_KEY.replace("+AYEK", "+BYEK"),
    ],
)
def test_a_malformed_signer_key_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(NoteError) as refused:
        Signer.parse(text)

    assert "FALVFGyNhPJE" not in "".join(traceback.format_exception(refused.value)).partition("NoteError")[2]
    assert "FALVFGyNhPJE" not in repr(refused.value)


def test_a_signer_key_given_as_a_verifier_key_is_not_shown() -> None:
    for text in (SIGNER_KEY, SIGNER_KEY.removeprefix("PRIVATE+KEY+").replace("c74f20a3", "00000000")):
        with pytest.raises(NoteError) as refused:
            Verifier.parse(text)

        assert "FALVFGyNhPJE" not in str(refused.value)


def test_a_signer_shows_its_name_and_nothing_secret() -> None:
    signer = Signer.parse(SIGNER_KEY)

    assert repr(signer) == f"{signer}" == "<Signer PeterNeumann+c74f20a3>"
    assert repr({"signer": [signer]}) == "{'signer': [<Signer PeterNeumann+c74f20a3>]}"
    with pytest.raises(TypeError):
        vars(signer)
    # Nor can it be pickled.
    with pytest.raises(TypeError):
        pickle.dumps(signer)


@pytest.mark.parametrize("name", ["", " ", "a b", "a+b", "a\n", "a\u2003b", "a\u00a0b", "a\0b", "\ud800"])
def test_an_invalid_key_name_is_refused(name: str) -> None:
    with pytest.raises(NoteError):
        Signer.generate(name)


@pytest.mark.parametrize("name", ["a", "ledger.local/log", "höhe.example/ß", "日本"])
def test_a_key_with_any_other_name_can_sign(name: str) -> None:
    signer = Signer.generate(name)

    assert Signer.parse(signer.secret_text()).verifier == Verifier.parse(signer.verifier.text)
    assert open_note(sign("a\n", signer), [signer.verifier]) == "a\n"


@pytest.mark.parametrize("text", ["=", "YQ", "YQ=", "YR==", "YQ==\n", " YQ==", "YQ==YQ==", "Y-==", "é", "YWJj="])
def test_only_canonical_base64_is_decoded(text: str) -> None:
    assert decode_base64("YQ==") == b"a"
    with pytest.raises(ValueError):
        decode_base64(text)
