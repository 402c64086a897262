"""Checkpoint text: three lines in exactly one form."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.audit.merkle import EMPTY_ROOT
from ledger.audit.note import Signer, open_note, sign
from ledger.audit.signed_checkpoint import Checkpoint, CheckpointError

ROOT = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I="
# The example of tlog-checkpoint.
TEXT = f"example.com/behind-the-sofa\n20852163\n{ROOT}\n"


def test_the_example_of_the_specification_is_parsed_and_written() -> None:
    checkpoint = Checkpoint.parse(TEXT)

    assert checkpoint == Checkpoint("example.com/behind-the-sofa", 20_852_163, base64.b64decode(ROOT))
    assert checkpoint.text == TEXT


def test_the_checkpoint_of_an_empty_log_has_size_zero() -> None:
    checkpoint = Checkpoint("ledger.local/log", 0, EMPTY_ROOT)

    assert checkpoint.text == "ledger.local/log\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"
    assert Checkpoint.parse(checkpoint.text) == checkpoint


@given(st.integers(0, 2**63 - 1), st.binary(min_size=32, max_size=32))
def test_every_checkpoint_is_parsed_as_it_was_written(size: int, root: bytes) -> None:
    checkpoint = Checkpoint("ledger.local/log", size, root)

    assert Checkpoint.parse(checkpoint.text) == checkpoint


def test_extension_lines_are_ignored() -> None:
    assert Checkpoint.parse(TEXT + "one\ntwo\n") == Checkpoint.parse(TEXT)


def test_a_checkpoint_can_be_signed_as_a_note() -> None:
    signer = Signer.generate("example.com/behind-the-sofa")

    note = sign(Checkpoint.parse(TEXT).text, signer)

    assert Checkpoint.parse(open_note(note, [signer.verifier])).text == TEXT


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "\n\n\n",
        "origin\n1\n",
        f"origin\n1\n{ROOT}",
        f"\n1\n{ROOT}\n",
        f"origin\n\n{ROOT}\n",
        f"1\n{ROOT}\n",
        f"origin\n1\n{ROOT}\n\n",
        f"origin\n1\n{ROOT}\n\nextension\n",
        f"origin\n1\n{ROOT}\nextension",
        f"origin\n01\n{ROOT}\n",
        f"origin\n00\n{ROOT}\n",
        f"origin\n-1\n{ROOT}\n",
        f"origin\n+1\n{ROOT}\n",
        f"origin\n 1\n{ROOT}\n",
        f"origin\n1 \n{ROOT}\n",
        f"origin\n1_0\n{ROOT}\n",
        f"origin\n1.0\n{ROOT}\n",
        f"origin\n0x1\n{ROOT}\n",
        f"origin\n١\n{ROOT}\n",
        f"origin\n{'9' * 20}\n{ROOT}\n",
        f"origin\none\n{ROOT}\n",
        f"origin\r\n1\r\n{ROOT}\r\n",
        "origin\n1\n\n",
        "origin\n1\nroot\n",
        f"origin\n1\n{ROOT[:-1]}\n",
        f"origin\n1\n{ROOT} \n",
        f"origin\n1\n {ROOT}\n",
        # The same 32 bytes, with different unused bits.
        f"origin\n1\n{ROOT.replace('q2I=', 'q2J=')}\n",
        f"origin\n1\n{ROOT.replace('/', '_')}\n",
        f"origin\n1\n{base64.b64encode(bytes(31)).decode()}\n",
        f"origin\n1\n{base64.b64encode(bytes(33)).decode()}\n",
    ],
)
def test_a_malformed_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(CheckpointError):
        Checkpoint.parse(text)
