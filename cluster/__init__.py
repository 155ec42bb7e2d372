"""Where it runs: the lake, Ray, scoring and training over many workers.

Importing it sets what Ray and OpenMP read from the environment when they are first imported. Every
session needs a token: Ray's own default would write one to the home folder, readable by all. And
Ray must never unpickle the metadata of tensors in Parquet files (CVE-2026-41486): files come from
strangers.
"""

import os

from cluster.runtime import token

token.ensure_token()
# Threads of torch that wait let go of their core: docs/decisions/waiting-threads.md.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["RAY_DATA_AUTOLOAD_CLOUDPICKLE_TENSOR_METADATA"] = "0"
