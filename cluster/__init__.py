"""Where it runs: the lake, Ray, scoring and training over many workers.

Importing it sets what Ray reads from the environment when Ray is first imported. Every session
needs a token: Ray's own default would write one to the home folder, readable by all. And Ray must
never unpickle the metadata of tensors in Parquet files (CVE-2026-41486): files come from strangers.
"""

import os

from cluster.runtime import token

token.ensure_token()
os.environ["RAY_DATA_AUTOLOAD_CLOUDPICKLE_TENSOR_METADATA"] = "0"
