"""Where it runs: Ray, storage, splits, commits.

Ray reads its authentication mode when it is first imported, so it is settled here, before any
module of this package can import it: every session needs a token. Ray's own default would write
one to the home folder, readable by all.

Ray can be told to unpickle what Parquet files say of their tensors (CVE-2026-41486, an opt-in
since). Our files come from strangers: it is told not to, whatever the environment says.
"""

import os

from cluster import token

token.settle()
os.environ["RAY_DATA_AUTOLOAD_CLOUDPICKLE_TENSOR_METADATA"] = "0"
