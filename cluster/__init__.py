"""Where it runs: Ray, storage, splits, commits.

Ray reads its authentication mode when it is first imported, so it is settled here, before any
module of this package can import it: every session needs a token. One that is given (environment
or file) is used; otherwise this process and its children share a fresh one. Ray's own default
would write one to the home folder, readable by all.
"""

import os
import secrets

os.environ["RAY_AUTH_MODE"] = "token"
if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
