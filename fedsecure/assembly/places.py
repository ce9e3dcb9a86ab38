"""Where an aggregator keeps things: engine and stores, from its configuration."""

from fedsecure import registry
from fedsecure.checkpoint.replicate import shared_devices
from fedsecure.config import AggregatorConfig
from fedsecure.errors import ConfigurationError
from fedsecure.metadata import Engine
from fedsecure.stores import Store


def open_engine(config: AggregatorConfig, *, look: bool = False) -> Engine:
    """Return the engine of lease, journal and head.

    Parameters
    ----------
    look : bool
        Whether the caller only looks: an operator wants to see a sick server too.

    Raises
    ------
    ConfigurationError
        It cannot be used: a setting, its version, or it failed its trial.
    StorageError
        It does not answer.
    """
    settings = config.engine.settings(config.lease)
    if look:
        settings["trial"] = False
    engine: Engine = registry.load("metadata", config.engine.name).create(settings)
    return engine


def open_stores(config: AggregatorConfig) -> tuple[tuple[str, Store], ...]:
    """Return the checkpoint folders and buckets of a configuration, by name.

    Raises
    ------
    ConfigurationError
        Two folders on one device although `require_distinct_devices` is set.
    """
    shared = shared_devices(config.folders)
    if shared and config.require_distinct_devices:
        raise ConfigurationError(
            f"stores {shared[0][0]} and {shared[0][1]} are on one device: one disk "
            "would lose both; move one or unset store.require_distinct_devices"
        )
    opened = []
    for store in config.stores:
        if isinstance(store, str):
            local = registry.load("stores", "local").create({"path": store})
            opened.append((store, local))
        else:
            settings = store.model_dump(exclude_none=True)
            bucket = registry.load("stores", "s3").create(settings)
            opened.append((store.shown, bucket))
    return tuple(opened)
