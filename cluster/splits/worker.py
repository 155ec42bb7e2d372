"""The contracts of workers: an engine makes one of each in every process, and calls it from several
threads at once."""

from abc import ABC, abstractmethod
from typing import Any, Generic, Protocol, Self, TypeVar

import pyarrow as pa
import torch

from cluster.lake.input.splits import Split
from cluster.runtime.resources import ActorPlan
from cluster.runtime.threads import set_torch_threads


class Document(Protocol):
    """A value that travels between processes as JSON."""

    def to_document(self) -> dict[str, Any]: ...

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Self: ...


Work = TypeVar("Work", bound=Document)  # `Split` or `Task`
Answer = TypeVar("Answer", bound=Document)


class _Worker:
    """Has the threads of torch and the device of its plan."""

    def __init__(self, plan: ActorPlan) -> None:
        set_torch_threads(plan.torch_threads)
        self.device = torch.device("cuda" if plan.gpus else "cpu")


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
