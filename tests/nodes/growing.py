"""A driver whose pool works slowly: `python -m tests.nodes.growing ADDRESS SPLITS` prints, for each
split, the node that worked on it, and in the end what the pool says of itself.

Run as a program, so that its worker travels to the nodes by value.
"""

import json
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import ray

from cluster.lake.input.splits import Split
from cluster.runtime.resources import ActorPlan
from cluster.splits.opening import open_engine
from cluster.splits.worker import SplitWorker


@dataclass(frozen=True)
class Answer:
    """The node that worked on a split."""

    node: str
    split: str

    def to_document(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "Answer":
        return cls(**document)


class Slow(SplitWorker[Split, Answer]):
    """Half a second of work."""

    work_type, answer_type = Split, Answer

    def __init__(self, plan: ActorPlan) -> None:
        super().__init__(plan)
        self.node = ray.get_runtime_context().get_node_id()

    def answer(self, day: str, split: Split) -> Answer:
        time.sleep(0.5)
        return Answer(self.node, split.id)


def main(address: str, count: int) -> None:
    splits = [
        ("2026-01-01", Split(str(n), "a.parquet", "1", (0,), n, n, 1, 8)) for n in range(count)
    ]
    with open_engine(address) as engine:
        plan = engine.plan_actors()
        pool = engine.watch(plan, count)
        for _, answer in engine.stream(splits, Slow, (), plan):
            pool.look()
            print(json.dumps(answer.to_document()), flush=True)
        print(json.dumps({"began_with": plan.actors, "most": pool.most}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
