"""Reads the Prometheus metrics of an API process that is measured."""

import aiohttp
from prometheus_client.parser import text_string_to_metric_families


async def read_metrics(url: str) -> dict[str, float]:
    """Return the value of each metric of the API without labels, by name; of one with labels, the last value."""
    async with aiohttp.ClientSession() as client, client.get(f"{url}/metrics") as response:
        text = await response.text()
    return {sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples}
