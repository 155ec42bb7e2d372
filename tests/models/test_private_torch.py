"""The private parts of torch that we use are as they were when they were read."""

import torch
from torch import nn

from models import private_torch
from models.private_torch import TorchDispatchMode, run_fused_linear, tree_leaves


def test_torch_is_the_version_whose_private_parts_were_read() -> None:
    assert torch.__version__.partition("+")[0] == private_torch.CHECKED_AGAINST


def test_the_fused_linear_layer_takes_the_arguments_that_it_is_given() -> None:
    operator = torch.ops.mkldnn._linear_pointwise.default
    assert [argument.name for argument in operator._schema.arguments] == [
        *("X", "W", "B"),
        *("attr", "scalars", "algorithm"),
    ]
    assert private_torch.HAS_FUSED_LINEAR
    layer, values = nn.Linear(5, 3), torch.randn(7, 5)
    with torch.no_grad():
        fused = run_fused_linear(values, layer.weight, layer.bias, "relu")
        torch.testing.assert_close(fused, nn.functional.relu(layer(values)))


def test_a_dispatch_mode_sees_each_operation_and_leaves_are_found_in_nested_arguments() -> None:
    seen: list[str] = []

    class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, operation, types, arguments=(), options=None):  # type: ignore[no-untyped-def]
            seen.append(operation.name())
            return operation(*arguments, **(options or {}))

    with Watch():  # type: ignore[no-untyped-call]
        torch.ones(2) + 1
    assert seen == ["aten::ones", "aten::add.Tensor"]
    assert tree_leaves(([1, {"a": 2}], {"b": (3,)})) == [1, 2, 3]
