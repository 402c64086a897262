"""Prices for the price book: from the library genai-prices, and what an import of them would change."""
