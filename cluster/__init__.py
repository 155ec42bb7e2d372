"""Where it runs: Ray, storage, splits, commits.

Ray reads its authentication mode when it is first imported, so it is settled here, before any
module of this package can import it: every session needs a token. Ray's own default would write
one to the home folder, readable by all.
"""

from cluster import token

token.settle()
