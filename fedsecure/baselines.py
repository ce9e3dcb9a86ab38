"""The runs that a run is held against: without protection, and with local noise."""

from fedsecure.config import RunConfig
from fedsecure.sections import TrainConfig
from fedsecure.update import JSON


def unprotected(config: RunConfig) -> RunConfig | None:
    """Return the same run without privacy and encryption; None if it is that already.

    Where a round was one noisy step its learning rate is none for plain SGD, which
    then takes the usual one.
    """
    protected = config.privacy.mode != "none" or config.encryption.scheme == "bfv"
    if not protected:
        return None
    return _changed(config, {"mode": "none", "metrics": "plain"}, plainly(config))


def with_local_noise(config: RunConfig, epsilon: float) -> RunConfig | None:
    """Return what noise of each site's own buys at the same epsilon.

    The same steps, clip, sampling and learning rate, on all of a site's share of the
    expected batch; only the noise is drawn in full at every site. None where the run
    shares no noise of examples.
    """
    asked, batch = config.privacy, config.divisor
    if asked.mode != "example_distributed" or batch is None:
        return None
    local: dict[str, JSON] = {
        **asked.model_dump(mode="json"),
        "mode": "example_local",
        "target_epsilon": epsilon,
        "noise_multiplier": None,
        "divisor": batch / config.federation.sites,
        "metrics": "plain",
        "metrics_epsilon": None,
        "metrics_each_round": False,
    }
    return _changed(config, local, config.train.model_dump(mode="json"))


def plainly(config: RunConfig) -> dict[str, JSON]:
    """Return how the same model is trained where nothing is protected."""
    train: dict[str, JSON] = config.train.model_dump(mode="json")
    if config.privacy.mode in {"example_distributed", "user_distributed"}:
        train["learning_rate"] = TrainConfig().learning_rate
    return train


def _changed(
    config: RunConfig, privacy: dict[str, JSON], train: dict[str, JSON]
) -> RunConfig:
    values = config.document()
    values["privacy"], values["train"] = privacy, train
    values["encryption"] = {
        "scheme": "insecure_plain",
        "max_contributors": config.encryption.max_contributors,
    }
    values["backend"], values["store"] = {"name": "inprocess"}, {"name": "memory"}
    values["federation"] = {**config.federation.model_dump(mode="json"), "kits": None}
    return RunConfig.parse(values)
