"""Reads the Prometheus metrics of an API process that is measured."""

import aiohttp


async def read_metrics(client: aiohttp.ClientSession, url: str) -> dict[str, float]:
    """Read `/metrics` of an API process.

    Args:
        client: an HTTP session, with the key of an admin if the API needs keys.
        url: of the API, without a path.

    Returns:
        the values, by name and labels as they are written: `name` or `name{label="value"}`.

    Raises:
        aiohttp.ClientError: the metrics could not be read.
    """
    async with client.get(f"{url}/metrics") as response:
        response.raise_for_status()
        lines = (await response.text()).splitlines()
    samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in samples}
