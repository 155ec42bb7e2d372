"""Training by one worker in this process and by two over Ray Train: equal steps on uneven shards,
early stopping, resume, lost workers, non-finite losses."""

import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil  # type: ignore[import-untyped]  # of Ray
import pyarrow as pa
import pytest
import ray
import ray.data
from torch import Tensor

from cluster.lake.storage.opening import open_store
from cluster.runtime.threads import VARIABLE, set_torch_threads
from cluster.splits.engine import Engine
from cluster.splits.local_engine import LocalEngine, LocalTables
from cluster.splits.ray_engine import RayEngine, RayTables
from cluster.training import trainer
from cluster.training.checkpoint import Checkpoints
from cluster.training.dataset import TrainingData
from cluster.training.epochs import find_trainer
from cluster.training.rank import WorkerInput
from cluster.training.row_tables import from_table
from cluster.training.trainer import COLLECTIVE
from models.batch import Batch
from models.detectors.catalog import CATALOG
from models.encoding.encoder import Encoder
from models.training.loop import learn
from models.training.options import NonFiniteLoss, TrainingOptions
from models.training.progress import EpochResult, Progress

on_ray = pytest.mark.usefixtures("ray_session")


def run(
    table: pa.Table,
    encoder: Encoder,
    folder: Path,
    *,
    workers: int = 2,
    on_ray: bool = False,
    on_epoch: Callable[[EpochResult], None] = lambda epoch: None,
    detector: str = "autoencoder",
    shown: Batch | None = None,
    start: Mapping[str, Tensor] | None = None,
    most_rows: int | None = None,
    **options: object,
) -> Progress:
    # Blocks of very different sizes: one worker gets far more rows than the other.
    sizes = [1300, 17, 300]
    blocks, first = [], 0
    for size in sizes:
        blocks.append(table.slice(first, size))
        first += size
    engine: Engine = LocalEngine("a test")
    data = TrainingData(
        encoder, LocalTables(tuple(blocks)), LocalTables((table.slice(first),)), first
    )
    if workers > 1 or on_ray:
        engine = RayEngine("a test")
        rows, held_back = ray.data.from_arrow(blocks), ray.data.from_arrow(table.slice(first))
        data = TrainingData(encoder, RayTables(rows), RayTables(held_back), first)
    training = TrainingOptions(batch_rows=256, **{"epochs": 3, **options})  # type: ignore[arg-type]
    given = WorkerInput(
        encoder, detector, {}, training, first, shown=shown, start=start, most_rows=most_rows
    )
    # The tests' Ray is told of more CPUs than there may be: two threads would wait for a core.
    plan = replace(engine.plan_workers(workers, 1), torch_threads=1)
    train = find_trainer(engine)
    return train(given, data, plan, Checkpoints(open_store(str(folder)), "a-run"), on_epoch)


@dataclass(frozen=True)
class Twice:
    """A training by one worker, and the same one called again for more epochs."""

    first: Progress
    again: Progress


@pytest.fixture(scope="module")
def twice(table: pa.Table, encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Twice:
    folder = tmp_path_factory.mktemp("one")
    return Twice(*(run(table, encoder, folder, workers=1, epochs=epochs) for epochs in (2, 4)))


@on_ray
def test_two_workers_learn_from_uneven_shards_and_batches_in_parts_what_one_learns(
    twice: Twice, table: pa.Table, encoder: Encoder, tmp_path: Path
) -> None:
    by_two = run(table, encoder, tmp_path, epochs=4, accumulate=3)
    losses = [epoch.validation_loss for epoch in by_two.history]
    assert len(losses) == 4
    assert losses[-1] < losses[0]
    assert by_two.best_epoch == int(np.argmin(losses)) + 1
    detector = CATALOG.build("autoencoder", encoder.layout, {})
    detector.load_state_dict(by_two.best)
    # Which rows each of the two workers gets is Ray Data's, and not the same twice.
    assert losses[0] == pytest.approx(twice.first.history[0].validation_loss, rel=0.1)


def test_training_stops_when_the_held_back_loss_no_longer_falls(
    table: pa.Table, encoder: Encoder, tmp_path: Path
) -> None:
    trained = run(table, encoder, tmp_path, workers=1, epochs=30, patience=1, learning_rate=0.05)
    assert len(trained.history) == trained.best_epoch + 1 < 30


def test_the_same_run_called_again_goes_on_where_it_was(twice: Twice) -> None:
    assert twice.again.resumed_from == 2
    assert [epoch.epoch for epoch in twice.again.history] == [1, 2, 3, 4]
    assert twice.again.history[:2] == twice.first.history


def test_a_worker_without_memory_for_its_batch_learns_it_in_parts(
    twice: Twice, table: pa.Table, encoder: Encoder, tmp_path: Path
) -> None:
    parts = run(table, encoder, tmp_path, workers=1, epochs=2, most_rows=20)
    loss = twice.first.history[0].validation_loss
    assert parts.history[0].validation_loss == pytest.approx(loss, rel=1e-3)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_workers_learn_from_the_labelled_anomalies_that_they_are_shown(
    workers: int,
    table: pa.Table,
    encoder: Encoder,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    if workers > 1:
        request.getfixturevalue("ray_session")
    extracted, label = from_table(table.slice(0, 50))
    shown = encoder(extracted)._replace(label=label).take(label > 0.5)
    trained = run(
        table, encoder, tmp_path, workers=workers, detector="devnet", shown=shown, epochs=1
    )
    assert trained.best_epoch == 1


def test_a_training_starts_from_the_weights_that_it_is_given_and_leaves_high_losses_out(
    table: pa.Table, encoder: Encoder, tmp_path: Path
) -> None:
    extracted, _ = from_table(table)
    detector = CATALOG.build("autoencoder", encoder.layout, {})
    rows = encoder(extracted)
    learned = learn(detector, rows, rows, TrainingOptions(batch_rows=256, epochs=2))
    start = detector.state_dict()
    again = run(table, encoder, tmp_path, workers=1, epochs=1, start=start, trim=0.2)
    assert again.history[0].train_loss < learned.losses[0]


def worker_processes() -> list[psutil.Process]:
    """Ray Train's workers of this test's Ray, the newest first; other tests may have theirs."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it ended meanwhile
            if any("RayTrainWorker" in word for word in process.cmdline()):
                found.append(process)
    return sorted(found, key=lambda process: process.create_time(), reverse=True)


@pytest.mark.slow
@on_ray
def test_a_worker_that_waits_for_one_that_hangs_gives_up_and_both_are_begun_anew(
    table: pa.Table, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(COLLECTIVE, "5")
    stopped: list[psutil.Process] = []

    def stop_once(epoch: EpochResult) -> None:
        if epoch.epoch == 3 and not stopped:
            stopped.append(worker_processes()[0])
            stopped[0].suspend()

    trained = run(table, encoder, tmp_path, epochs=20, patience=20, on_epoch=stop_once)
    assert stopped
    assert [epoch.epoch for epoch in trained.history] == list(range(1, 21))
    assert trained.resumed_from >= 2


class _WhenWarned(logging.Handler):
    """Calls on the first warning."""

    def __init__(self, call: Callable[[], None]) -> None:
        super().__init__(logging.WARNING)
        self.call = call
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())
        if len(self.said) == 1:
            self.call()


@on_ray
def test_a_training_that_loses_workers_too_often_says_so_and_goes_on_when_there_is_room(
    table: pa.Table, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []  # at these epochs

    def kill_once_at(number: int) -> Callable[[EpochResult], None]:
        def kill(epoch: EpochResult) -> None:
            if epoch.epoch == number and number not in killed:
                worker_processes()[0].kill()
                killed.append(number)

        return kill

    again = {"workers": 1, "on_ray": True, "epochs": 20, "patience": 20}
    with pytest.raises(ConnectionError, match=r"more than 0 times; .* The last error: "):
        run(table, encoder, tmp_path, max_failures=0, on_epoch=kill_once_at(3), **again)  # type: ignore[arg-type]

    @ray.remote(num_cpus=int(ray.cluster_resources()["CPU"]) - 1)  # the data need one
    class Other:
        def there(self) -> bool:
            return True

    monkeypatch.setattr(trainer, "_UNSTARTED_S", 2.0)
    other = Other.remote()  # type: ignore[attr-defined]
    assert ray.get(other.there.remote())
    warned = _WhenWarned(lambda: ray.kill(other))
    logger = logging.getLogger(trainer.__name__)
    logger.addHandler(warned)
    try:
        trained = run(table, encoder, tmp_path, on_epoch=kill_once_at(8), **again)  # type: ignore[arg-type]
    finally:
        logger.removeHandler(warned)
    assert len(warned.said) == 1  # a worker that only starts slowly is no reason to warn
    assert "no training worker has started" in warned.said[0]
    assert "have 1 CPUs" in warned.said[0]
    assert killed == [3, 8]  # the second time it is replaced
    assert [epoch.epoch for epoch in trained.history] == list(range(1, 21))
    assert trained.resumed_from >= 7


@on_ray
def test_a_loss_that_is_not_finite_stops_with_epoch_batch_and_cause(
    table: pa.Table, encoder: Encoder, tmp_path: Path
) -> None:
    # Steps this large make the weights overflow within the first epochs. No worker is lost by it,
    # so none is restarted.
    options = {"learning_rate": 1e30, "warmup": 0.0, "max_failures": 0}
    with pytest.raises(NonFiniteLoss, match=r"not finite at epoch \d+, batch \d+; caused by"):
        run(table, encoder, tmp_path, **options)  # type: ignore[arg-type]


@on_ray
def test_a_worker_of_ray_knows_what_the_operator_set() -> None:
    @ray.remote(num_cpus=1)
    class Worker:
        def start(self) -> int:
            return set_torch_threads(2)

    environment = {"env_vars": {VARIABLE: "3"}}
    worker = Worker.options(runtime_env=environment).remote()  # type: ignore[attr-defined]
    assert ray.get(worker.start.remote()) == 3
