"""Files with prices: a JSON array with the fields of `price.published`; all faults are named."""

import sys
from pathlib import Path

import click
import msgspec

from ledger.domain.catalogue import type_of
from ledger.domain.codec import decode_hook
from ledger.domain.price import PricePublished
from ledger.log.event_faults import faults_of

FILE_BYTES_MAX = 16 * 1024 * 1024
PRICES_MAX = 20_000

_price = msgspec.json.Decoder(PricePublished, dec_hook=decode_hook)
_texts = msgspec.json.Decoder(list[msgspec.Raw] | dict[str, msgspec.Raw])


def read_price_file(name: str) -> list[PricePublished]:
    """Read the prices of a file, or of standard input if the name is `-`.

    Raises:
        click.UsageError: The file cannot be read, or a price in it is not valid; all faults are named.
    """
    body = _read(name)
    try:
        decoded = _texts.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{name}: {error}; expected a JSON array of prices") from None
    texts = [bytes(text).decode() for text in decoded] if isinstance(decoded, list) else [body.decode()]
    if len(texts) > PRICES_MAX:
        raise click.UsageError(f"{name} has {len(texts):,} prices, but at most {PRICES_MAX:,} are imported at once")
    event_type = type_of(PricePublished)
    faults = [
        f"{name}, price {number}, {fault.path.removeprefix('$.data').lstrip('.') or 'whole'}: {fault.message}"
        for number, text in enumerate(texts, 1)
        for fault in faults_of(f'{{"type":"{event_type.name}","data":{text}}}')
    ]
    if faults:
        raise click.UsageError("\n".join(faults))
    return [_price.decode(text) for text in texts]


def _read(name: str) -> bytes:
    try:
        with sys.stdin.buffer if name == "-" else Path(name).open("rb") as file:
            body = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise click.UsageError(f"{name}: {error.strerror}") from None
    if len(body) > FILE_BYTES_MAX:
        raise click.UsageError(f"{name} has more than {FILE_BYTES_MAX // 1024**2} MiB")
    return body
