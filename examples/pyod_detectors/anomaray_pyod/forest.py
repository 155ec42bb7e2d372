"""An isolation forest of scikit-learn as arrays, and back.

A tree is an object of compiled code that follows the numbers in it, so each is checked first.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble._iforest import _average_path_length
from sklearn.tree._tree import NODE_DTYPE, Tree

# The number of nodes of each tree; the nodes of all trees; the rows that a tree was grown from.
FOREST = ("sizes", "nodes", "rows_per_tree")
_MOST_ROWS = 1e9  # of a node: they are counted in integers
_COLUMNS = ("left_child", "right_child", "feature", "threshold", "n_node_samples")


def take_trees(forest: Any) -> dict[str, NDArray[np.float64]]:
    """The arrays of a fitted forest: float64 [trees], [nodes, 5] and a number."""
    states = [tree.tree_.__getstate__()["nodes"] for tree in forest.estimators_]
    nodes = [np.stack([state[name] for name in _COLUMNS], 1) for state in states]
    return {
        "sizes": np.array([len(state) for state in states], np.float64),
        "nodes": np.concatenate(nodes).astype(np.float64),
        "rows_per_tree": np.asarray(forest._max_samples, np.float64),
    }


def put_trees(forest: Any, arrays: dict[str, NDArray[np.float64]]) -> None:
    """Put trees into a fitted forest that has as many. Raises ValueError for what is no forest."""
    sizes, nodes, rows = (arrays[name] for name in FOREST)
    trees = len(forest.estimators_)
    _require(sizes.shape == (trees,) and rows.shape == (), f"{trees} trees")
    _require(all(np.isfinite(array).all() for array in arrays.values()), "finite numbers")
    _require(bool((sizes >= 1).all() and (sizes % 1 == 0).all()), "whole numbers of nodes")
    _require(nodes.shape == (sizes.sum(), len(_COLUMNS)), f"nodes of {len(_COLUMNS)} numbers")
    _require(rows >= 2, "two rows or more for each tree")
    forest._max_samples = int(rows)
    parts = np.split(nodes, np.cumsum(sizes[:-1]).astype(int))
    made = [_make_tree(part, forest.n_features_in_) for part in parts]
    for holder, tree in zip(forest.estimators_, made, strict=True):
        holder.tree_ = tree
    # What scikit-learn computes from the trees at the end of a fit.
    forest._decision_path_lengths = [tree.compute_node_depths() for tree in made]
    forest._average_path_length_per_tree = [_average_path_length(t.n_node_samples) for t in made]


def _make_tree(nodes: NDArray[np.float64], features: int) -> Any:
    left, right, feature, _, rows = nodes.T
    places, inner = np.arange(len(nodes)), left != -1
    whole = nodes[:, [0, 1, 2, 4]]
    counted = (rows >= 1) & (rows <= _MOST_ROWS)
    _require(bool((whole % 1 == 0).all() and counted.all()), "whole numbers")
    # Children come after their parent, so no path has a circle or leaves the tree.
    for child in (left, right):
        within = (child > places) & (child < len(nodes))
        _require(bool(np.where(inner, within, child == -1).all()), "children within their tree")
    known = (feature >= 0) & (feature < features)
    _require(bool((known | ~inner).all()), f"features below {features}")
    tree = Tree(features, np.ones(1, np.intp), 1)
    filled = np.zeros(len(nodes), NODE_DTYPE)
    for name, column in zip(_COLUMNS, nodes.T, strict=True):
        filled[name] = column
    filled["weighted_n_node_samples"] = rows
    depth = _measure_depth(left, right)
    values = np.zeros((len(nodes), 1, 1))
    tree.__setstate__(
        {"max_depth": depth, "node_count": len(nodes), "nodes": filled, "values": values}
    )
    return tree


def _measure_depth(left: NDArray[np.float64], right: NDArray[np.float64]) -> int:
    depths = np.zeros(len(left), int)
    for place in np.flatnonzero(left != -1):
        for child in (int(left[place]), int(right[place])):
            depths[child] = depths[place] + 1
    return int(depths.max())


def _require(holds: bool, expected: str) -> None:
    if not holds:
        raise ValueError(f"expected {expected}")
