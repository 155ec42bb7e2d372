"""The hand-written loop of `limit` with eager torch instead of onnxruntime."""

from tests.bench.contenders import limit

if __name__ == "__main__":
    limit.main(__doc__, "torch")
