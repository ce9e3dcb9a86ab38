"""The object Flower loads at an aggregator."""

from fedsecure.assembly.aggregator import from_run_config
from fedsecure.flower.strategy import server_app

app = server_app(from_run_config)
