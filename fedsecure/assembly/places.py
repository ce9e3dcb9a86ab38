"""Where an aggregator keeps things: engine, stores and keys, from its configuration."""

from pathlib import Path

from fedsecure import registry
from fedsecure.access.kit import Kit
from fedsecure.access.roster import Role
from fedsecure.checkpoint.devices import shared_devices
from fedsecure.checkpoint.rack import Rack, kek_rack
from fedsecure.config import AggregatorConfig
from fedsecure.errors import ConfigurationError
from fedsecure.keks import Kek
from fedsecure.metadata import Engine
from fedsecure.placement import KekConfig
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


def open_kek(
    kit: Kit, config: KekConfig, *, retry_pin: bool = False, make: bool = False
) -> Kek:
    """Return a key-encryption key; a token's is logged in to.

    Parameters
    ----------
    retry_pin : bool
        Log in although the token says that the last PIN was wrong.
    make : bool
        Make the key in its token first.

    Raises
    ------
    ConfigurationError
        It cannot be used as it is configured.
    StorageError
        The token does not answer.
    """
    if config.name == "pkcs11":
        return token_kek(config, kit.path, retry_pin=retry_pin, make=make)
    settings = {"name": kit.name, "key": kit.box}
    made: Kek = registry.load("keks", config.name).create(settings)
    return made


def token_kek(
    config: KekConfig, kit: Path, *, retry_pin: bool = False, make: bool = False
) -> Kek:
    """Return a key in a token; see `open_kek`.

    Parameters
    ----------
    kit : Path
        Where its PIN must not lie: backups would carry it.
    """
    pin = config.pin_file
    if pin is not None and Path(pin).resolve().is_relative_to(kit.resolve()):
        raise ConfigurationError(
            f"kek pin_file {pin} lies in the kit, whose backups would carry it: keep "
            "it outside"
        )
    settings = {**config.settings(), "retry_pin": retry_pin, "make": make}
    made: Kek = registry.load("keks", "pkcs11").create(settings)
    return made


def open_rack(kit: Kit, config: AggregatorConfig) -> Rack:
    """Return what checkpoints are sealed under and opened with.

    Raises
    ------
    ConfigurationError, StorageError
        A token or its key cannot be used.
    """
    own = open_kek(kit, KekConfig())
    before = [open_kek(kit, each) for each in config.kek_before]
    if config.kek.name == "file":
        boxes = {m.name: m.box for m in kit.roster.of(Role.AGGREGATOR)}
        return Rack(boxes, {each.id: each for each in (own, *before)})
    return kek_rack(open_kek(kit, config.kek), [*before, own])
