"""What nodes are asked before a plan is made for them."""

import subprocess
import sys

import torch

from cluster.runtime.shipping import ROOT

# A Ray that was started with a GPU, whether the machine has one or not.
PROGRAM = """
import ray
from cluster.runtime import ray_nodes as nodes
from models.refusal import Refusal

ray.init("local", num_cpus=1, num_gpus=1, include_dashboard=False, log_to_driver=False)
try:
    print(nodes.list_nodes(ask_gpus=True)[0].gpu_memory)
except Refusal as error:
    print(error)

@ray.remote(num_cpus=0, num_gpus=1)
class Holder:
    def there(self):
        return True

holder = Holder.remote()
assert ray.get(holder.there.remote())
nodes._ANSWERED_S = 0.5
(one,) = nodes.list_nodes(ask_gpus=True)
print(one.gpus, one.gpu_memory)

@ray.remote(num_cpus=0)
def look():
    import sys
    nodes._look_at_gpu()
    return "torch" in sys.modules

print(ray.get(look.remote()))
"""


def test_gpus_are_asked_for_their_memory_and_only_what_a_node_has_is_planned_with() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert ended.returncode == 0, ended.stderr
    asked, taken, imported = ended.stdout.splitlines()
    assert imported == "False", "the question imports torch"
    if torch.cuda.is_available():
        assert int(asked) > 0
    else:
        assert "was started with 1 GPU, and has no driver of a GPU" in asked
        assert "--num-gpus 0" in asked
    # The GPU is in use: nobody waits for it, and an actor gets it whole.
    assert taken == "1 0"
    assert "each actor gets a whole GPU" in ended.stderr
