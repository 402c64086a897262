"""The leaf hash computed in SQL equals the hash of the entry that Python encodes."""

from datetime import UTC, datetime

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.audit import tree_store
from ledger.audit.log_entry import encode_entry
from ledger.audit.merkle import leaf_hash
from ledger.database import Database
from ledger.domain.catalogue import CATALOGUE
from ledger.log.read import StoredEvent
from tests.log.helpers import value

# Everything except NUL and lone surrogates, which PostgreSQL cannot store and the service refuses.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=100)
AWKWARD = st.sampled_from(
    [
        '"',
        "\\",
        "\\u0041",
        "a'b''c",
        "\b\f\n\r\t",
        "\x01\x1f\x7f\x80\x9f",
        "\u2028\u2029",
        "é",
        "e\u0301",
        "👩‍👧",
        "%s",
        "{}",
    ]
)
identities = st.none() | st.uuids()
# The first and the last microsecond of the calendar are refused when an event is appended.
FIRST, LAST = datetime(1, 1, 1, 0, 0, 0, 1), datetime(9999, 12, 31, 23, 59, 59, 999_998)  # noqa: DTZ001
times = st.datetimes(FIRST, LAST, timezones=st.just(UTC)) | st.sampled_from(
    [FIRST.replace(tzinfo=UTC), LAST.replace(tzinfo=UTC)]
)
events = st.builds(
    StoredEvent,
    position=st.integers(1, 2**63 - 1),
    category=texts | AWKWARD,
    stream_id=st.uuids(),
    version=st.integers(1, 2**63 - 1),
    id=st.uuids(),
    type=st.sampled_from(sorted(CATALOGUE)) | texts,
    schema_version=st.integers(1, 2**15 - 1),
    occurred_at=times,
    recorded_at=times,
    actor=texts | AWKWARD,
    campaign_id=identities,
    agent_job_id=identities,
    correlation_id=identities,
    causation_id=identities,
    data=st.dictionaries(texts | AWKWARD, texts | AWKWARD | st.integers(-(10**12), 10**12) | st.none(), max_size=3).map(
        lambda data: msgspec.json.encode(data).decode()
    ),
    text=st.none(),
    text_commitment=st.none() | st.binary(min_size=32, max_size=32).map(bytes.hex),
)

TYPES = (
    "bigint text uuid bigint uuid text smallint timestamptz timestamptz text uuid uuid uuid uuid json text text"
).split()
COLUMNS = enumerate(zip(StoredEvent.__struct_fields__, TYPES, strict=True), 1)
ROW = ", ".join(f"${at}::{kind} AS {name}" for at, (name, kind) in COLUMNS)


async def hashed(database: Database, event: StoredEvent, setting: str) -> tuple[bytes, bytes]:
    """Return the entry and the leaf hash as the database computes them."""
    async with database.connection() as connection, connection.transaction():
        await connection.execute(f"SET LOCAL {setting}")
        row = await connection.fetchrow(
            f"SELECT convert_to({tree_store.ENTRY_SQL}, 'UTF8'), {tree_store.LEAF_HASH_SQL} "
            f"FROM (SELECT {ROW}) AS event",
            *msgspec.structs.astuple(event),
        )
    assert row is not None
    return row[0], row[1]


SETTINGS = (
    "timezone = 'Asia/Kathmandu'",
    "datestyle = 'SQL, DMY'",
    "bytea_output = 'escape'",
    "intervalstyle = iso_8601",
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(event=events, setting=st.sampled_from(SETTINGS))
async def test_sql_and_python_encode_the_same_entry_whatever_the_session_settings(
    database: Database, event: StoredEvent, setting: str
) -> None:
    entry, leaf = await hashed(database, event, setting)

    assert entry == encode_entry(event)
    assert leaf == leaf_hash(entry)


async def test_the_database_encoding_is_utf8(database: Database) -> None:
    assert await value(database, "SHOW server_encoding") == "UTF8"
