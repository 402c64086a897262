"""Export lines: exactly one valid form for each event; truncated and damaged files are reported."""

import gzip
import io
import json
import zlib
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from ledger.audit.export_file import ExportReadError, ExportWriteError, create_export, open_export
from ledger.audit.export_lines import LINE_BYTES_MAX, ExportError, read_lines, write_line
from ledger.audit.log_entry import commitment, encode_entry
from ledger.log.read import SaltedEvent
from tests.audit.exports import erased, export_of, line_of, read, recorded, recorded_story
from tests.events import campaign, cost

SALT, TEXT = bytes(range(16)), '{"description":"café"}'
EVENT = SaltedEvent(
    position=1,
    category="cost",
    stream_id=UUID("0197a000-0000-7000-8000-00000000000a"),
    version=1,
    id=UUID("0197a000-0000-7000-8000-00000000000b"),
    type="cost.recorded",
    schema_version=1,
    occurred_at=datetime(2025, 1, 31, 10, tzinfo=UTC),
    recorded_at=datetime(2025, 1, 31, 10, tzinfo=UTC),
    actor="agent",
    campaign_id=None,
    agent_job_id=None,
    correlation_id=None,
    causation_id=None,
    data='{"resource_type":"media","cost":"1","currency":"EUR"}',
    text=TEXT,
    text_commitment=commitment(SALT, TEXT.encode()),
    text_salt=SALT,
)
LINE = write_line(EVENT)


def replaced(old: str, new: str) -> bytes:
    assert old in LINE.decode()
    return LINE.decode().replace(old, new, 1).encode()


def test_a_line_has_exactly_this_form() -> None:
    salt = b'"000102030405060708090a0b0c0d0e0f"'

    written = b'{"entry":' + encode_entry(EVENT) + b',"salt":' + salt + b',"text":' + TEXT.encode() + b"}\n"
    assert written == LINE


def test_an_erased_text_and_its_salt_are_null() -> None:
    (event,) = recorded(cost(description="A text"))

    line = json.loads(line_of(erased(event)))

    assert (line["salt"], line["text"]) == (None, None)
    assert line["entry"]["text_commitment"] == event.text_commitment


def test_every_event_type_is_read_as_recorded_except_over_budget_and_size() -> None:
    events = recorded_story()

    lines = read(export_of(events))

    assert [line.event for line in lines] == [event._replace(over_budget=None, size=0) for event in events]
    assert [line.number for line in lines] == list(range(1, len(events) + 1))
    assert b"".join(line.entry for line in lines) == b"".join(
        json.dumps(json.loads(line)["entry"], separators=(",", ":"), ensure_ascii=False).encode()
        for line in export_of(events).splitlines()
    )


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"{}\n",
        b"null\n",
        b" " + LINE,
        LINE[:-1] + b" \n",
        LINE[:-1] + b"\r\n",
        LINE[:-1] + LINE,
        replaced('{"entry":', '{"entry": '),
        replaced(',"salt"', ',"more":1,"salt"'),
        replaced(',"salt":"000102030405060708090a0b0c0d0e0f"', ""),
        replaced('"salt":"000102030405060708090a0b0c0d0e0f"', '"salt":null'),
        replaced("0a0b0c0d0e0f", "0A0B0C0D0E0F"),
        replaced("0d0e0f", "0d0e"),
        replaced("0d0e0f", "0d0e0f\\n"),
        replaced('"text":{"description":"café"}', '"text":null'),
        replaced('"text":{"description":"café"}', '"text":"café"'),
        replaced('"text":{"description":"café"}', '"text":{"description": "café"}'),
        replaced('"text":{"description":"café"}', '"text":{"description":"cafe"}'),
        replaced('"text":{"description":"café"}', '"text":{"description":"caf\\u00e9"}'),
        replaced('"text":{"description":"café"}', '"text":{"description":"caf\\ud800"}'),
        replaced("0001020304", "ff01020304"),
        replaced('"position":1', '"position":0'),
        replaced('"v":1', '"v":2'),
        replaced('"actor":"agent"', '"actor":"a\\u0000"'),
        replaced("2025-01-31T10:00:00.000000Z", "0001-01-01T00:00:00.000000Z"),
        LINE.replace(b"agent", b"\xff"),
        b"[" * 5_000 + b"]" * 5_000 + b"\n",
    ],
    ids=lambda line: f"{len(line)} bytes",
)
def test_a_line_in_any_other_form_is_refused_with_its_number(line: bytes) -> None:
    with pytest.raises(ExportError) as refused:
        read(LINE + line)

    assert refused.value.line == 2
    assert str(refused.value).startswith("line 2")


def test_a_text_that_does_not_match_its_commitment_is_reported_with_its_position() -> None:
    with pytest.raises(
        ExportError, match=r"^line 1 \(position 1\): the text does not match the commitment in the entry"
    ):
        read(replaced("café", "tea"))


def test_a_line_without_a_newline_is_reported_as_truncated() -> None:
    with pytest.raises(ExportError, match="line 2: the file ends in the middle of the line"):
        read(LINE + LINE[:-1])


def test_an_endless_line_is_not_read_into_memory() -> None:
    class Endless(io.BytesIO):
        size = 0

        def readline(self, size: int | None = -1, /) -> bytes:
            self.size = size or 0
            return b"x" * self.size

    file = Endless()

    with pytest.raises(ExportError, match="longer than"):
        next(read_lines(file))

    assert 0 < file.size <= LINE_BYTES_MAX + 1


@pytest.mark.parametrize("name", ["log.ndjson", "log.ndjson.gz"])
def test_a_file_contains_what_was_written_and_reports_its_size(tmp_path: Path, name: str) -> None:
    export = export_of(recorded_story())

    with create_export(tmp_path / name) as write:
        write(export[:1000])
        write(export[1000:])

    with open_export(tmp_path / name) as file:
        assert file.lines.read() == export
        assert file.bytes_read == file.size == (tmp_path / name).stat().st_size
    written = (tmp_path / name).read_bytes()
    assert (gzip.decompress(written) if name.endswith(".gz") else written) == export
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_compressed_file_is_read_whatever_its_name(tmp_path: Path) -> None:
    path = tmp_path / "log.ndjson"
    path.write_bytes(gzip.compress(LINE))

    with open_export(path) as file:
        lines = list(read_lines(file.lines))

    assert [line.event.position for line in lines] == [1]


@pytest.mark.parametrize("missing", [1, 4, 8, 30, 200])
def test_a_truncated_compressed_file_is_reported(tmp_path: Path, missing: int) -> None:
    path = tmp_path / "log.gz"
    path.write_bytes(gzip.compress(export_of(recorded_story()))[:-missing])

    with (
        open_export(path) as file,
        pytest.raises(ExportError, match=r"^line \d+: the file ends in the middle of its comp"),
    ):
        list(read_lines(file.lines))


def test_a_damaged_compressed_file_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "log.gz"
    whole = bytearray(gzip.compress(export_of(recorded_story())))
    whole[len(whole) // 2] ^= 255
    path.write_bytes(whole)
    with pytest.raises((OSError, zlib.error)):
        gzip.decompress(bytes(whole))

    with open_export(path) as file, pytest.raises(ExportError, match=r"^line \d+"):
        list(read_lines(file.lines))


def test_a_file_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "log.ndjson"
    path.write_text("mine")

    with pytest.raises(ExportWriteError, match="already exists"), create_export(path):
        pass

    assert path.read_text() == "mine"


def test_a_file_created_in_the_meantime_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "log.ndjson"

    with pytest.raises(ExportWriteError, match="was created by another process"), create_export(path) as write:
        write(LINE)
        path.write_text("mine")

    assert [(found.name, found.read_text()) for found in tmp_path.iterdir()] == [("log.ndjson", "mine")]


@pytest.mark.parametrize("name", ["log.ndjson", "log.ndjson.gz"])
def test_a_failed_export_leaves_no_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="failed"), create_export(tmp_path / name) as write:
        write(LINE)
        raise ValueError("failed")

    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ExportWriteError, match="No such file"), create_export(tmp_path / "away" / "log.ndjson"):
        pass
    with pytest.raises(ExportReadError, match="No such file"), open_export(tmp_path / "away" / "log.ndjson"):
        pass


def test_two_exports_of_the_same_log_are_the_same_bytes(tmp_path: Path) -> None:
    export = export_of(recorded(campaign(), cost()))

    for name in ("one.gz", "two.gz"):
        with create_export(tmp_path / name) as write:
            write(export)

    assert (tmp_path / "one.gz").read_bytes() == (tmp_path / "two.gz").read_bytes()
