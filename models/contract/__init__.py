"""The tests that every detector passes, ours and those of other packages. They need pytest."""

import pytest

pytest.register_assert_rewrite(f"{__name__}.suite")
