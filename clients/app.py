"""The object Flower loads at a site: a relay to the node daemon."""

from fedsecure.flower.mod import client_app

app = client_app()
