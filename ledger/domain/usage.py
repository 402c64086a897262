"""Usage of a model or a tool: counters named as OpenTelemetry names them, and their tokens."""

from collections.abc import Iterator
from typing import Annotated

import msgspec

from ledger.domain.codec import InvalidFieldError
from ledger.domain.fields import Count

WHOLES = (
    (("cache_read_tokens", "cache_write_tokens"), "input_tokens"),
    (("cache_write_1h_tokens",), "cache_write_tokens"),
    (("input_audio_tokens",), "input_tokens"),
    (("output_audio_tokens",), "output_tokens"),
    (("reasoning_tokens",), "output_tokens"),
)
"""Counters, and the counter that includes all of them."""


class Usage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """What a call used. `input_tokens` include cached ones, `output_tokens` include reasoning."""

    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cache_read_tokens: Count | None = None
    cache_write_tokens: Count | None = None
    cache_write_1h_tokens: (
        Annotated[Count, msgspec.Meta(description="Those of `cache_write_tokens` kept for an hour.")] | None
    ) = None
    reasoning_tokens: Count | None = None
    input_audio_tokens: Count | None = None
    output_audio_tokens: Count | None = None
    images: Count | None = None
    seconds: Count | None = None
    characters: Count | None = None
    searches: Count | None = None
    requests: Count | None = None

    def __post_init__(self) -> None:
        # Every append with usage comes here, so the usual case is compared without a loop.
        inputs, outputs, cache_writes = self.input_tokens or 0, self.output_tokens or 0, self.cache_write_tokens or 0
        if (
            (self.cache_read_tokens or 0) + cache_writes > inputs
            or (self.cache_write_1h_tokens or 0) > cache_writes
            or (self.input_audio_tokens or 0) > inputs
            or (self.output_audio_tokens or 0) > outputs
            or (self.reasoning_tokens or 0) > outputs
        ):
            raise InvalidFieldError("usage", "; ".join(self._larger_parts()))

    def _larger_parts(self) -> Iterator[str]:
        """Say which counters are larger than the one that includes them."""
        for parts, whole in WHOLES:
            if sum(getattr(self, name) or 0 for name in parts) > (getattr(self, whole) or 0):
                pronoun = "it" if len(parts) == 1 else "them"
                yield f"{' and '.join(parts)} must not be more than {whole}, which includes {pronoun}"

    @property
    def names_counter(self) -> bool:
        """Whether it says anything. A usage without counters is no usage: nothing can be charged by it."""
        return self != _EMPTY

    @property
    def is_zero(self) -> bool:
        """Whether nothing was used."""
        return not any(msgspec.structs.astuple(self))

    @property
    def tokens(self) -> int:
        """Input and output together."""
        return (self.input_tokens or 0) + (self.output_tokens or 0)


COUNTERS = Usage.__struct_fields__

_EMPTY = Usage()
