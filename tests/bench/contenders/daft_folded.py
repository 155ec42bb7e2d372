"""Daft with a class UDF and the folded model of `limit` in it, instead of the bundle's own."""

from tests.bench.contenders import daft_udf

if __name__ == "__main__":
    daft_udf.main(__doc__, folded=True)
