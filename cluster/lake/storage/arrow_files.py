"""The files of a store as a file system of Arrow that reads them, and does nothing else."""

from typing import Any

import pyarrow as pa
import pyarrow.fs as fs

from cluster.lake.storage.store import Missing, Store


class StoreFiles(fs.FileSystemHandler):  # type: ignore[misc]
    """Opens files as the store does: no link leads out of it, whenever it was put there."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def get_type_name(self) -> str:
        return "anomaray"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: list[str]) -> list[fs.FileInfo]:
        return [self._find(path) for path in paths]

    def open_input_file(self, path: str) -> Any:
        try:
            return pa.PythonFile(self.store.open_parquet(path), mode="r")
        except Missing as gone:
            raise FileNotFoundError(str(gone)) from None

    open_input_stream = open_input_file

    def _find(self, path: str) -> fs.FileInfo:
        try:
            found = self.store.stat(path)
        except Missing:
            return fs.FileInfo(path, fs.FileType.NotFound)
        return fs.FileInfo(path, fs.FileType.File, size=found.size)

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError("this file system reads files that are named")

    get_file_info_selector = create_dir = delete_dir = delete_dir_contents = _refuse
    delete_root_dir_contents = delete_file = move = copy_file = _refuse
    open_output_stream = open_append_stream = _refuse
