"""Errors of prices: a call for which there is no price."""

from collections.abc import Sequence
from typing import Any

from ledger.domain.errors import Refused

_ALSO = {"input_audio_tokens": "cached", "output_audio_tokens": "reasoning"}
"""What else the tokens of a counter may be."""


class Unpriced(Refused):
    """There is no price for the usage of a call."""

    slug = "unpriced"

    def __init__(
        self,
        provider: str | None,
        model_used: str | None,
        service_tier: str,
        currency: str,
        without_rate: Sequence[str] = (),
        ambiguous: Sequence[str] = (),
        advice: str = "publish one",
    ) -> None:
        """Create the refusal.

        Args:
            provider: The provider of the call; None if it was not reported.
            model_used: The model; None if it was not reported.
            service_tier: The provider's class of service.
            currency: The currency of the call.
            without_rate: The counters that the price has no rate for; empty if there is no price.
            ambiguous: The counters of audio that may also be in another counter with a rate of its own.
            advice: What can be done.
        """
        if provider is None or model_used is None:
            why = "`provider` and `model_used` are needed to find a price"
        elif ambiguous:
            unknown = " and ".join(f"which of its {name} are {_ALSO[name]}" for name in ambiguous)
            why = f"the usage does not say {unknown}, and the price of {model_used} of {provider} has a rate for each"
        elif without_rate:
            why = f"the price of {model_used} of {provider} has no rate for {', '.join(without_rate)}"
        else:
            why = f"there is no price of {model_used} of {provider} for service tier {service_tier} in {currency}"
        super().__init__(f"{why}; {advice}")
        self._members = {
            "provider": provider,
            "model_used": model_used,
            "service_tier": service_tier,
            "currency": currency,
        }

    @property
    def members(self) -> dict[str, Any]:
        return self._members
