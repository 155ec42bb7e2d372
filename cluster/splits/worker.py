"""The contract of a worker: whatever runs tasks calls `answer`, and sends the answer on as JSON."""

from abc import ABC, abstractmethod
from typing import Any, Generic, Protocol, Self, TypeVar

import torch

from cluster.runtime.resources import ActorPlan
from cluster.runtime.threads import set_torch_threads


class Document(Protocol):
    """A value that travels between processes as JSON."""

    def to_document(self) -> dict[str, Any]: ...

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Self: ...


Work = TypeVar("Work", bound=Document)  # `Split` or `Task`
Answer = TypeVar("Answer", bound=Document)


class SplitWorker(ABC, Generic[Work, Answer]):
    """Answers splits, or tasks, one at a time; several threads may call `answer` at once."""

    work_type: type[Work]
    answer_type: type[Answer]

    def __init__(self, plan: ActorPlan) -> None:
        set_torch_threads(plan.torch_threads)
        self.device = torch.device("cuda" if plan.gpus else "cpu")

    @abstractmethod
    def answer(self, day: str, task: Work) -> Answer:
        """The answer to one split or task of the day."""
