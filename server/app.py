"""The object Flower loads at an aggregator."""

from fedsecure.assembly.aggregator import from_context
from fedsecure.flower.strategy import server_app

app = server_app(from_context)
