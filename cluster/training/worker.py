"""What runs in each worker of a training: one DDP rank."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import ray
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from torch import Tensor, nn

from cluster.training import checkpoint
from cluster.training.row_tables import from_table
from models.batch import Batch, join
from models.detectors.catalog import CATALOG
from models.detectors.detector import Detector
from models.encoding.encoder import Encoder
from models.encoding.raw_batch import RawBatch
from models.encoding.raw_batch import join as join_rows
from models.training.memory import fitting_step
from models.training.options import (
    NonFiniteLoss,
    TrainingOptions,
    batches_of,
    kept,
    parts_of,
    rate,
    trimmed,
)

# A worker keeps its share of the rows from the first epoch on where it is below this many bytes:
# streaming a small share again costs 1 to 2 s an epoch, whatever its size.
_KEPT_BYTES = 512 * 1024**2
# Rows that a worker takes from Ray Data at once and shuffles before cutting batches: larger mixes
# the splits better, and costs this many encoded rows of memory.
_SHUFFLE_BATCHES = 16


class _NonFiniteElsewhere(NonFiniteLoss):
    """The loss of another rank was NaN or infinite: that one knows why."""


def train_worker(config: dict[str, Any]) -> None:
    """One DDP rank. A loss that is not finite ends it without an error: Ray Train would begin the
    workers anew after one, and the same rows would give the same loss."""
    try:
        _train(config)
    except _NonFiniteElsewhere:
        return
    except NonFiniteLoss as refusal:
        ray.get(config["board"].refuse.remote(str(refusal)))


def _train(config: dict[str, Any]) -> None:
    """Epochs of steps, a validation and a checkpoint after each."""
    import time

    context = ray.train.get_context()
    rank = context.get_world_rank()
    options = TrainingOptions(**config["training"])
    torch.set_num_threads(config["torch_threads"])
    torch.manual_seed(options.seed + rank)
    device = ray.train.torch.get_device()
    encoder: Encoder = config["encoder"].to(device).eval()
    torch.manual_seed(options.seed)  # the same weights on every rank
    detector = CATALOG.build(config["detector"], encoder.layout, config["options"]).to(device)
    if config["start"] is not None:
        detector.load_state_dict(config["start"])
    if config["prepared"]:
        detector.prepare(**config["prepared"])
    if config["shown"] is not None:
        detector.show(config["shown"].to(device))
    torch.manual_seed(options.seed + rank)
    optimizer = torch.optim.AdamW(
        detector.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
    )
    batch_rows, passes = batches_of(config["rows"], options.batch_rows)
    steps = passes * max(1, math.ceil(config["rows"] / batch_rows))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate(options, steps))
    progress = _resume(detector, optimizer, schedule)
    loop = _Loop(encoder, detector, optimizer, schedule, options, batch_rows, passes, device)
    loop.fit_memory(config["most_rows"])
    for epoch in range(len(progress.history), options.epochs):
        started = time.monotonic()
        train_loss, rows = loop.epoch(epoch)
        seconds = time.monotonic() - started
        validation_loss = loop.validate(epoch)
        entry = {
            "epoch": epoch + 1,
            "train_loss": train_loss,
            "validation_loss": validation_loss,
            "learning_rate": optimizer.param_groups[0]["lr"],
            "rows_per_second": rows / max(seconds, 1e-9),
        }
        progress = progress.after(entry, detector.state_dict())
        progress.report(detector, optimizer, schedule, rank, entry)
        if rank == 0:
            ray.get(config["board"].pin.remote(entry))
        if epoch + 1 - progress.best_epoch >= options.patience:
            break


def _resume(
    detector: Detector,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> checkpoint.Progress:
    saved = ray.train.get_checkpoint()
    if saved is None:
        return checkpoint.Progress()
    with saved.as_directory() as folder:
        return checkpoint.restore(folder, detector, optimizer, schedule)


Buffer = tuple[RawBatch, Tensor]  # rows and their labels, float32 [rows]


class _Share:
    """This rank's share of a dataset, as buffers of rows: streamed, or kept where it is small."""

    def __init__(self, name: str, rows: int) -> None:
        self.name, self.rows = name, rows
        self.kept: list[Buffer] | None = []
        self.settled = False

    def buffers(self) -> Iterator[Buffer]:
        if self.settled and self.kept is not None:
            yield from self.kept
            return
        held = 0
        shard = ray.train.get_dataset_shard(self.name)
        for table in shard.iter_batches(
            batch_size=self.rows, batch_format="pyarrow", prefetch_batches=2
        ):
            buffer = from_table(table)
            held += buffer[0].nbytes
            if self.kept is not None:
                self.kept.append(buffer)
                if held > _KEPT_BYTES:
                    self.kept = None
            yield buffer

    def settle(self, agree: Callable[[float], float]) -> None:
        """After the first pass: all ranks keep their share, or all go on streaming, since an epoch
        of `streaming_split` waits for every rank. `agree` sums a number over all ranks."""
        if self.settled:
            return
        self.settled = True
        if agree(float(self.kept is None)) > 0:
            self.kept = None
        elif self.kept:
            rows, labels = zip(*self.kept, strict=True)
            self.kept = [(join_rows(rows), torch.cat(labels))]


class _Loop:
    """The steps of one rank."""

    def __init__(
        self,
        encoder: Encoder,
        detector: Detector,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
        options: TrainingOptions,
        batch_rows: int,
        passes: int,
        device: torch.device,
    ) -> None:
        context = ray.train.get_context()
        self.rank, self.world = context.get_world_rank(), context.get_world_size()
        self.encoder, self.detector = encoder, detector
        self.optimizer, self.schedule, self.options = optimizer, schedule, options
        self.passes, self.device = passes, device
        self.rows_a_rank = max(1, batch_rows // self.world)
        self.parts = options.accumulate
        buffer_rows = self.rows_a_rank * _SHUFFLE_BATCHES
        self.learned, self.held_back = (
            _Share(name, buffer_rows) for name in ("train", "validation")
        )
        self.model: nn.Module = detector
        if self.world > 1:
            self.model = nn.parallel.DistributedDataParallel(detector, broadcast_buffers=False)

    def fit_memory(self, most_rows: int | None) -> None:
        """Compute this rank's share of a batch in as many parts as its memory asks for. Ranks may
        differ: the gradient is the same whatever the parts."""
        if self.device.type == "cuda":
            most_rows = fitting_step(self.encoder, self.detector, self.rows_a_rank, self.device)
        if most_rows is not None:
            self.parts = max(self.parts, math.ceil(self.rows_a_rank / max(1, most_rows)))

    def epoch(self, epoch: int) -> tuple[float, int]:
        """One epoch; returns the mean training loss and the rows, over all ranks."""
        self.detector.train()
        generator = np.random.default_rng((self.options.seed, epoch, self.rank))
        total_loss, total_kept, own_rows, number = 0.0, 0.0, 0, 0
        for _ in range(self.passes):
            batches = self._batches(self.learned, generator)
            while True:
                number += 1
                batch = next(batches, None)
                parts = [] if batch is None else parts_of(batch, self.parts)
                sizes = [len(part.numeric) for part in parts]
                rows = self._sum(float(sum(kept(size, self.options.trim) for size in sizes)))
                if rows == 0:
                    break
                # This rank's summed loss; added up over ranks in the end.
                total_loss += self._step(parts, rows, epoch, number)
                total_kept += rows
                own_rows += sum(sizes)
            self.learned.settle(self._sum)
        return self._sum(total_loss) / max(1.0, total_kept), int(self._sum(float(own_rows)))

    def _step(self, parts: list[Batch], rows: float, epoch: int, number: int) -> float:
        """One update. Ranks have shards of different sizes: one that has run out takes part with
        an empty share, so that every rank makes the same steps and no row is dropped. The
        gradient is that of the mean over all ranks' rows, `rows`, that are not trimmed."""
        self.optimizer.zero_grad(set_to_none=True)
        every, learned = 0.0, 0.0
        for index, part in enumerate(parts or [self._nothing()]):
            # Ranks meet once a step, at its last part.
            with self._alone() if index + 1 < len(parts) else nullcontext():
                with torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda"):
                    per_row = self.model(part).float()
                total = trimmed(per_row, self.options.trim).sum()
                if not parts:
                    total, per_row = total * 0.0, per_row * 0.0
                (total * self.world / rows).backward()
            every += float(per_row.detach().sum())
            learned += float(total.detach())
        # The check is on the sum over ranks, so that all stop together; with the trimmed rows, as
        # a row whose loss is NaN would be trimmed and forgotten.
        if not math.isfinite(self._sum(every)):
            if math.isfinite(every):
                raise _NonFiniteElsewhere
            self._explain(parts, epoch, number)
        nn.utils.clip_grad_norm_(self.detector.parameters(), self.options.clip_gradient)
        self.optimizer.step()
        self.schedule.step()
        return learned

    def _alone(self) -> AbstractContextManager[None]:
        """A backward pass whose gradients stay on this rank for now."""
        if isinstance(self.model, nn.parallel.DistributedDataParallel):
            return self.model.no_sync()
        return nullcontext()

    @torch.no_grad()
    def validate(self, epoch: int) -> float:
        """Mean loss over the held-back rows of all ranks."""
        self.detector.eval()
        loss, rows = 0.0, 0
        for batch in self._batches(self.held_back, None):
            losses = trimmed(self.detector.loss(batch).float(), self.options.trim)
            loss += float(losses.sum())
            rows += len(losses)
        self.held_back.settle(self._sum)
        total, count = self._sum(loss), self._sum(float(rows))
        if not math.isfinite(total):
            raise NonFiniteLoss(f"the validation loss of epoch {epoch + 1} is {total}")
        return total / max(1.0, count)

    def _batches(self, share: _Share, generator: np.random.Generator | None) -> Iterator[Batch]:
        """Encoded batches of this rank; shuffled within each buffer when there is a generator."""
        size = self.rows_a_rank
        for rows, label in share.buffers():
            order = torch.arange(len(label))
            if generator is not None:
                order = torch.from_numpy(generator.permutation(len(label)))
            for start in range(0, len(label), size):
                chosen = order[start : start + size]
                batch: Batch = self.encoder(rows.take(chosen).to(self.device))
                yield batch._replace(label=label[chosen].to(self.device))

    def _nothing(self) -> Batch:
        """One row of zeros."""
        rows = self.encoder.make_empty().map(lambda tensor: tensor.new_zeros(1, *tensor.shape[1:]))
        batch: Batch = self.encoder(rows.to(self.device))
        return batch._replace(label=torch.zeros(1, device=self.device))

    def _sum(self, value: float) -> float:
        if self.world == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return float(tensor)

    @torch.no_grad()
    def _explain(self, parts: list[Batch], epoch: int, number: int) -> None:
        """Stop, naming the feature that made the loss non-finite."""
        batch = join(parts or [self._nothing()])
        bad = ~torch.isfinite(batch.numeric)
        if bad.any():
            feature = self.encoder.layout.numeric[int(bad.any(0).nonzero()[0])].name
        else:
            shares = self.detector.contributions(batch).shares
            odd = ~torch.isfinite(shares)
            column = odd.any(0).nonzero()
            names = self.encoder.layout.features
            feature = names[int(column[0])] if len(column) else "the weights (they diverged)"
        raise NonFiniteLoss(
            f"the training loss is not finite at epoch {epoch + 1}, batch {number}; caused by "
            f"{feature}: lower training.learning_rate, or give that column a range, clip or log1p "
            "in the spec"
        )
