import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fedsecure.errors import (
    ConfigurationError,
    NotFinite,
    PolicyRefused,
    TrainingFailed,
)
from fedsecure.learning.sitedata import SiteData, pool
from fedsecure.learning.training import LocalTrainer, SystemRandom, central_training
from fedsecure.privacy.lattice import Lattice
from fedsecure.privacy.mechanism import DiscreteGaussian
from fedsecure.privacy.plan import Mode, PrivacyPlan
from fedsecure.trainer import JSON, TrainingResult, TrainingTask
from fedsecure.update import Layout, RoundId, Vector
from tests.fakes.randomness import Stream

USER = "tests.fakes.userfunctions"
PLAN = PrivacyPlan(
    mode=Mode.EXAMPLE_LOCAL,
    clip_norm=1.0,
    noise_multiplier=1.0,
    sample_rate=0.5,
    steps_per_round=3,
    rounds=2,
    delta=1e-5,
    divisor=20.0,
)


def _site(seed: int = 0, rows: int = 60, task: str = "binary") -> SiteData:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(rows, 3)).astype(np.float32)
    score = x @ np.array([2.0, -1.0, 0.5], dtype=np.float32)
    y = score if task == "regression" else (score > 0).astype(np.int64)
    data = SiteData(
        x[20:], (score > 0)[20:] + 0, x[:20], (score > 0)[:20] + 0, "binary", 1, (3,)
    )
    if task == "regression":
        return replace(data, train_y=y[20:], test_y=y[:20], task="regression")
    return data


def _settings(**sections: JSON) -> dict[str, JSON]:
    plain: dict[str, JSON] = {
        "model": {"name": "logistic"},
        "train": {"epochs": 2, "batch_size": 8, "learning_rate": 0.1},
        "privacy": {"mode": "none"},
        "seed": 7,
    }
    return {**plain, **sections}


def _own(name: str) -> dict[str, JSON]:
    return _settings(model={"name": "object", "object": f"{USER}:{name}"})


def _run(
    trainer: LocalTrainer,
    settings: Mapping[str, JSON],
    number: int = 1,
    *,
    train: bool = True,
    model: Vector | None = None,
) -> TrainingResult:
    layout, first = trainer.initial(settings)
    start = first if model is None else model
    return trainer.run(
        TrainingTask(RoundId("run", number), layout, start, settings, train)
    )


def _delta(
    trainer: LocalTrainer, settings: Mapping[str, JSON], number: int = 1
) -> bytes:
    update = _run(trainer, settings, number).update
    assert update is not None
    return update.delta.tobytes()


def test_the_first_model_depends_on_no_row() -> None:
    first, second = LocalTrainer(_site(1)), LocalTrainer(_site(2))
    assert np.array_equal(first.initial(_settings())[1], second.initial(_settings())[1])


def test_the_first_model_depends_on_the_seed() -> None:
    trainer = LocalTrainer(_site())
    one, two = trainer.initial(_settings()), trainer.initial(_settings(seed=8))
    assert not np.array_equal(one[1], two[1])


def test_the_layout_names_the_weights() -> None:
    layout, model = LocalTrainer(_site()).initial(_settings())
    assert layout == Layout(("1.weight", "1.bias"), ((1, 3), (1,)))
    assert model.shape == (4,)


def test_equal_tasks_give_equal_bits() -> None:
    first = _delta(LocalTrainer(_site()), _settings())
    torch.rand(3)
    assert first == _delta(LocalTrainer(_site()), _settings())


def test_a_trainer_remembers_nothing_between_rounds() -> None:
    trainer = LocalTrainer(_site())
    first = _delta(trainer, _settings())
    _run(trainer, _settings(), number=2)
    assert first == _delta(trainer, _settings())


def test_another_round_shuffles_otherwise() -> None:
    trainer = LocalTrainer(_site())
    assert _delta(trainer, _settings(), 1) != _delta(trainer, _settings(), 2)


def test_another_site_shuffles_otherwise() -> None:
    first, second = LocalTrainer(_site(), index=0), LocalTrainer(_site(), index=1)
    assert _delta(first, _settings()) != _delta(second, _settings())


def test_dropout_repeats_too() -> None:
    def once(number: int) -> bytes:
        trainer = LocalTrainer(_site(), objects=[f"{USER}:dropout_model"])
        return _delta(trainer, _own("dropout_model"), number)

    assert once(1) == once(1)
    assert once(1) != once(2)


def test_trainers_in_threads_give_the_bits_of_trainers_in_turn() -> None:
    settings = _own("dropout_model")
    trainers = [
        LocalTrainer(_site(i), index=i, objects=[f"{USER}:dropout_model"])
        for i in range(4)
    ]
    alone = [_delta(trainer, settings) for trainer in trainers]
    together: dict[int, bytes] = {}

    def work(i: int) -> None:
        together[i] = _delta(trainers[i], settings)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[i] for i in range(4)] == alone


def test_torchs_globals_are_given_back() -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    state = torch.random.get_rng_state()
    _run(LocalTrainer(_site()), _settings())
    after = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    assert before == after
    assert torch.equal(state, torch.random.get_rng_state())


def test_one_plain_step_is_the_gradient() -> None:
    data = _site()
    train: dict[str, JSON] = {"batch_size": 1000, "learning_rate": 0.1}
    settings = _settings(train=train)
    layout, model = LocalTrainer(data).initial(settings)
    update = _run(LocalTrainer(data), settings).update
    assert update is not None
    x = np.hstack([data.train_x, np.ones((40, 1))]).astype(np.float64)
    error = 1 / (1 + np.exp(-(x @ model))) - data.train_y
    assert update.delta == pytest.approx(-0.1 * x.T @ error / 40, abs=1e-6)
    assert update.num_examples == 40
    assert update.layout == layout


def test_metrics_are_of_the_incoming_model() -> None:
    trainer = LocalTrainer(_site())
    judged = _run(trainer, _settings(), train=False)
    assert judged.metrics == _run(trainer, _settings(), train=True).metrics


def test_an_evaluation_makes_no_update() -> None:
    result = _run(LocalTrainer(_site()), _settings(), train=False)
    assert (result.update, result.dp_steps) == (None, 0)
    assert set(result.metrics) == {"num_test", "loss", "accuracy"}


def test_training_makes_the_model_better() -> None:
    trainer = LocalTrainer(_site())
    first = _run(trainer, _settings())
    assert first.update is not None
    after = trainer.initial(_settings())[1] + first.update.delta
    later = _run(trainer, _settings(), train=False, model=after)
    assert later.metrics["loss"] < first.metrics["loss"]


def test_a_regression_learns() -> None:
    history = central_training(_site(task="regression"), _settings(), 10)
    assert history[-1]["r2"] > 0.99


def test_rows_are_the_training_rows() -> None:
    assert LocalTrainer(_site()).rows() == 40


def test_a_private_round_takes_the_plans_steps() -> None:
    result = _run(LocalTrainer(_site()), _settings(privacy=PLAN.document()))
    assert result.dp_steps == PLAN.steps_per_round
    assert result.update is not None


def test_a_private_round_draws_from_the_system() -> None:
    trainer = LocalTrainer(_site())
    settings = _settings(privacy=PLAN.document())
    assert _delta(trainer, settings) != _delta(trainer, settings)


def test_a_private_round_repeats_only_from_a_given_source() -> None:
    settings = _settings(privacy=PLAN.document())
    first = _delta(LocalTrainer(_site(), source=Stream("a")), settings)
    assert first == _delta(LocalTrainer(_site(), source=Stream("a")), settings)


def test_a_private_round_asks_the_same_whatever_epochs_say() -> None:
    train: dict[str, JSON] = {"epochs": 9, "learning_rate": 0.1}
    settings = _settings(privacy=PLAN.document(), train=train)
    assert _run(LocalTrainer(_site()), settings).dp_steps == PLAN.steps_per_round


def test_a_private_update_is_bounded_by_clip_and_noise() -> None:
    far = _site()
    far = replace(far, train_x=far.train_x * np.float32(1e6))
    settings = _settings(privacy=PLAN.document())
    update = _run(LocalTrainer(far), settings).update
    assert update is not None
    # 3 steps of rate 0.1: at most 40 clipped rows, and noise of a few sigma, over 20.
    assert float(np.linalg.norm(update.delta)) < 3 * 0.1 * (40 + 10) / 20


def test_the_systems_generator_gives_as_many_bytes_as_asked() -> None:
    assert [len(SystemRandom().bytes(n)) for n in (0, 1, 33)] == [0, 1, 33]


def test_frozen_weights_are_no_part_of_the_update() -> None:
    trainer = LocalTrainer(_site(), objects=[f"{USER}:half_frozen_model"])
    layout, _ = trainer.initial(_own("half_frozen_model"))
    assert layout.names == ("1.weight", "1.bias")
    _run(trainer, _own("half_frozen_model"))


def test_a_model_the_site_did_not_list_is_refused() -> None:
    with pytest.raises(PolicyRefused, match="not among the functions"):
        LocalTrainer(_site()).initial(_own("dropout_model"))


def test_a_layer_that_cannot_train_privately_is_refused_with_the_first_model() -> None:
    # By then no round was paid for.
    trainer = LocalTrainer(_site(), objects=[f"{USER}:prelu_model"])
    private = {**_own("prelu_model"), "privacy": PLAN.document()}
    with pytest.raises(ConfigurationError, match=r"layer '1' \(PReLU\).*functorch"):
        trainer.initial(private)
    trainer.initial({**private, "train": {"engine": "functorch"}})
    trainer.initial(_own("prelu_model"))


def test_a_buffer_that_learns_is_refused() -> None:
    trainer = LocalTrainer(_site(), objects=[f"{USER}:counting_model"])
    with pytest.raises(ConfigurationError, match="buffer 'seen' changed"):
        _run(trainer, _own("counting_model"))


def test_a_users_mistake_is_training_failed() -> None:
    trainer = LocalTrainer(_site(), objects=[f"{USER}:failing_model"])
    with pytest.raises(TrainingFailed, match="round 1: ZeroDivisionError: a user's"):
        _run(trainer, _own("failing_model"))


def test_a_model_that_diverges_is_not_sent() -> None:
    train: dict[str, JSON] = {"learning_rate": 1e6, "epochs": 100}
    trainer = LocalTrainer(_site(task="regression"))
    with pytest.raises(NotFinite):
        _run(trainer, _settings(train=train))


def test_another_layout_is_refused() -> None:
    trainer = LocalTrainer(_site())
    layout = Layout(("w",), ((4,),))
    task = TrainingTask(RoundId("r", 1), layout, np.zeros(4), _settings(), train=True)
    with pytest.raises(ConfigurationError, match="4 weights in 2 tensors"):
        trainer.run(task)


@pytest.mark.parametrize("section", ["model", "privacy", "train"])
def test_a_section_that_is_no_mapping_is_refused(section: str) -> None:
    trainer = LocalTrainer(_site())
    layout, model = trainer.initial(_settings())
    settings = _settings(**{section: "logistic"})
    with pytest.raises(ConfigurationError, match=f"{section} is not a mapping"):
        trainer.run(TrainingTask(RoundId("r", 1), layout, model, settings, train=True))


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'abacus' is unknown"):
        _run(LocalTrainer(_site(), device="abacus"), _settings())


def test_the_sites_device_wins_over_the_plans() -> None:
    settings = _settings(train={"device": "abacus"})
    assert _run(LocalTrainer(_site(), device="cpu"), settings).update is not None


def test_cuda_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> bool:
        return False

    monkeypatch.setattr(torch.cuda, "is_available", none)
    with pytest.raises(ConfigurationError, match="sees no CUDA device"):
        _run(LocalTrainer(_site(), device="cuda"), _settings())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("model", ["logistic", "mlp"])
def test_cuda_repeats_itself_and_comes_close_to_the_cpu(model: str) -> None:
    settings = _settings(model={"name": model})
    first = _delta(LocalTrainer(_site(), device="cuda"), settings)
    assert first == _delta(LocalTrainer(_site(), device="cuda"), settings)
    cpu = np.frombuffer(_delta(LocalTrainer(_site(), device="cpu"), settings))
    assert np.frombuffer(first) == pytest.approx(cpu, abs=1e-4)


def test_the_centralised_baseline_tells_each_round() -> None:
    history = central_training(pool([_site(1), _site(2)]), _settings(), 5)
    assert len(history) == 6
    assert history[-1]["loss"] < history[0]["loss"]
    assert {line["num_test"] for line in history} == {40.0}


def test_the_centralised_baseline_is_without_noise() -> None:
    private: dict[str, Any] = _settings(privacy=PLAN.document())
    assert central_training(_site(), private, 2) == central_training(
        _site(), _settings(), 2
    )


# --- users and whole sites as units ---------------------------------------------------

WHOSE = np.repeat(np.arange(10, dtype=np.int64), 4)


def _shared(mode: Mode, clip: float = 1.0) -> dict[str, JSON]:
    plan = PrivacyPlan(
        mode=mode,
        clip_norm=clip,
        noise_multiplier=1.0,
        sample_rate=1.0,
        steps_per_round=1,
        rounds=2,
        delta=1e-5,
        divisor=20.0,
        min_contributors=5,
        max_colluders=1,
    )
    grid: JSON = {"field_bits": 48, "sites": 5}
    return _settings(privacy=plan.document(), grid=grid)


def _integers(data: SiteData, settings: Mapping[str, JSON]) -> Vector:
    """Return what a site adds, its noise always the same."""
    update = _run(LocalTrainer(data, source=Stream("same")), settings).update
    assert update is not None
    return update.delta


def _lattice(settings: Mapping[str, JSON]) -> Lattice:
    privacy = settings["privacy"]
    assert isinstance(privacy, dict)
    return Lattice.of(PrivacyPlan.from_document(privacy), 4, 48, 5)


def test_a_person_more_moves_a_sites_integers_by_the_sensitivity_at_most() -> None:
    data, settings = _site(), _shared(Mode.USER_DISTRIBUTED, 0.05)
    rest = replace(
        data, train_x=data.train_x[4:], train_y=data.train_y[4:], train_users=WHOSE[:-4]
    )
    data = replace(data, train_users=WHOSE)
    grid = _lattice(settings)
    moved = np.linalg.norm(_integers(data, settings) - _integers(rest, settings))
    assert 0.9 * grid.steps * 0.05 < moved <= grid.sensitivity


def test_a_site_without_a_column_of_persons_does_not_train_by_person() -> None:
    with pytest.raises(ConfigurationError, match=r"set data\.user_column"):
        _run(LocalTrainer(_site()), _shared(Mode.USER_DISTRIBUTED))


def test_persons_are_those_of_the_training_rows() -> None:
    trainer = LocalTrainer(replace(_site(), train_users=WHOSE))
    assert (trainer.rows(), trainer.users()) == (40, 10)


@pytest.mark.parametrize("rate", [1e-3, 1e3])
def test_a_whole_site_moves_the_sum_by_the_sensitivity_at_most(rate: float) -> None:
    # A site that is not there adds nothing but its noise, were it asked for it.
    train: dict[str, JSON] = {"epochs": 3, "batch_size": 8, "learning_rate": rate}
    settings = {**_shared(Mode.SILO, 0.5), "train": train}
    grid = _lattice(settings)
    noise = DiscreteGaussian(grid.share_sigma).draw(4, Stream("same"))
    moved = float(np.linalg.norm(_integers(_site(), settings) - noise))
    assert 0 < moved <= grid.sensitivity
    assert (moved > 0.99 * grid.steps * 0.5) == (rate > 1)


def test_a_short_update_of_a_site_is_not_scaled() -> None:
    settings = _shared(Mode.SILO, 100.0)
    grid = _lattice(settings)
    noise = DiscreteGaussian(grid.share_sigma).draw(4, Stream("same"))
    plain = _run(LocalTrainer(_site()), _settings()).update
    assert plain is not None
    found = (_integers(_site(), settings) - noise) / grid.steps
    assert found == pytest.approx(plain.delta, abs=1 / grid.steps)


def test_a_site_whose_training_diverged_adds_noise_alone() -> None:
    train: dict[str, JSON] = {"epochs": 9, "batch_size": 1, "learning_rate": 1e6}
    far = _site(task="regression")
    far = replace(far, train_x=far.train_x * np.float32(1e12))
    settings = {**_shared(Mode.SILO), "train": train}
    noise = DiscreteGaussian(_lattice(settings).share_sigma).draw(4, Stream("same"))
    assert np.array_equal(_integers(far, settings), noise)
