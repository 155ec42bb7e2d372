"""The memory of a detector, measured: what it says of one batch holds for a larger one."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from models.columns import Categorical, Numeric
from models.detectors.catalog import CATALOG
from models.detectors.detector import Detector
from models.encoding.encoder import Encoder
from models.encoding.fit import EncoderFit
from models.training import memory
from models.training.memory import (
    find_largest_batch,
    find_largest_step,
    measure_scoring,
    measure_training,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    rng = np.random.default_rng(0)
    rows = {"a": rng.normal(size=500), "proto": rng.choice(["tcp", "udp"], size=500)}
    batch = pa.RecordBatch.from_pydict(rows)
    fit = EncoderFit((Numeric("a"), Categorical("proto")), batch.schema)
    fit.update(batch)
    return fit.finish()


def autoencoder(encoder: Encoder, width: int) -> Detector:
    return CATALOG.build("autoencoder", encoder.layout, {"widths": (width, width)})


def test_a_batch_takes_what_was_foreseen_from_smaller_ones(encoder: Encoder) -> None:
    detector = autoencoder(encoder, 64)
    found = measure_scoring(encoder, detector, CPU)

    def score(rows: int) -> None:
        with torch.inference_mode():
            detector.score(memory.encode_zeros(encoder, rows, CPU))

    measured = memory._measure_peak(score, 4096, CPU)
    assert found.bytes_of(4096) - found.weights == pytest.approx(measured, rel=0.01)
    # Two layers of 64 float32 are alive at once, at least.
    assert found.row >= 2 * 64 * 4


def test_a_wider_network_takes_more_and_training_more_than_scoring(encoder: Encoder) -> None:
    narrow, wide = (measure_scoring(encoder, autoencoder(encoder, w), CPU) for w in (32, 256))
    assert wide.row > 4 * narrow.row
    assert wide.weights > 20 * narrow.weights
    learner = autoencoder(encoder, 256)
    before = {name: tensor.clone() for name, tensor in learner.state_dict().items()}
    training = measure_training(encoder, learner, CPU)
    assert training.row > wide.row
    assert training.weights > 3 * wide.weights
    assert all(torch.equal(before[name], t) for name, t in learner.state_dict().items())
    assert all(weights.grad is None for weights in learner.parameters())


def test_the_rows_that_fit_take_the_room_and_no_more(encoder: Encoder) -> None:
    found = measure_training(encoder, autoencoder(encoder, 64), CPU)
    room = 64 * 1024**2
    rows = found.rows_in(room)
    assert found.bytes_of(rows) <= room < found.bytes_of(rows + 1)
    assert found.rows_in(found.weights) == 0


def test_the_largest_batch_is_doubled_until_the_device_has_no_more() -> None:
    tried: list[int] = []

    def work(rows: int) -> None:
        tried.append(rows)
        if rows > 100:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    assert find_largest_batch(work, 4096) == 64
    assert tried == [4096, 1, 2, 4, 8, 16, 32, 64, 128]
    assert find_largest_batch(lambda rows: None, 1000) == 1000


def test_a_device_without_room_for_one_row_fits_none() -> None:
    def work(rows: int) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    assert find_largest_batch(work, 8) == 0


@pytest.mark.thorough
def test_the_search_ends_at_the_rows_that_were_foreseen_for_the_room(encoder: Encoder) -> None:
    """Steps of a real training, in an account of memory that is closed at a limit."""
    detector = autoencoder(encoder, 64)
    foreseen = measure_training(encoder, detector, CPU)
    room = 4 * 1024**2
    limit = room - foreseen.weights

    def step(rows: int) -> None:
        peak = memory._measure_peak(lambda n: memory._step(encoder, detector, n, CPU), rows, CPU)
        if peak > limit:
            raise torch.cuda.OutOfMemoryError("the account is closed")

    found = find_largest_batch(step, 2**20)
    assert found <= foreseen.rows_in(room) < 2 * found


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_filled_by_doubling_and_no_further(encoder: Encoder) -> None:
    device = torch.device("cuda")
    encoder, detector = encoder.to(device), autoencoder(encoder, 1024).to(device)
    foreseen = measure_training(encoder, detector, device)
    total = torch.cuda.mem_get_info(device)[1]
    room = 512 * 1024**2
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(room / total, device)
    try:
        found = find_largest_step(encoder, detector, 2**30, device)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
        encoder.to(CPU)
    assert 0 < found <= foreseen.rows_in(room)
    assert torch.cuda.memory_allocated(device) < room
