"""The contracts of workers: an engine makes one of each in every process, and calls it from several
threads at once."""

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any, Generic, Protocol, Self, TypeVar

import pyarrow as pa

from cluster.lake.input.splits import Split
from cluster.runtime.resources import ActorPlan
from cluster.runtime.threads import set_torch_threads
from models.bundle import Backend, Bundle
from models.compiled import Model


class Document(Protocol):
    """A value that travels between processes as JSON."""

    def to_document(self) -> dict[str, Any]: ...

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Self: ...


Work = TypeVar("Work", bound=Document)  # `Split` or `Task`
Answer = TypeVar("Answer", bound=Document)


class _Worker:
    def __init__(self, plan: ActorPlan) -> None:
        self.plan = plan

    @cached_property
    def device(self) -> str:
        """The device of the plan, for torch, which has the plan's threads from then on."""
        self._prepare_torch()
        return "cuda" if self.plan.gpus else "cpu"

    def open_model(self, bundle: Bundle, backend: Backend | None = None) -> Model:
        """The detector of a bundle, run by its backend, or else by the plan's."""
        backend = backend or bundle.choose_backend(self.plan.gpus > 0)
        return bundle.open_model(backend, self._prepare_torch)

    def _prepare_torch(self) -> None:
        set_torch_threads(self.plan.torch_threads)


class SplitWorker(_Worker, ABC, Generic[Work, Answer]):
    """Answers a split, or a task, with a document."""

    work_type: type[Work]
    answer_type: type[Answer]

    @abstractmethod
    def answer(self, day: str, task: Work) -> Answer:
        """The answer to one split or task of the day."""


class TableWorker(_Worker, ABC):
    """Makes a table of a split."""

    @abstractmethod
    def read(self, day: str, split: Split) -> pa.Table:
        """The table of one split of the day; all tables have one schema."""
