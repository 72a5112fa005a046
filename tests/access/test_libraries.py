"""The libraries that people use with fsspec: each heavy one by one test, where it is installed.

`pip install 'castore[test-doors]'` brings them all; without them these tests are skipped.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import fsspec
import pytest

from castore.access.fsspec import CastoreFileSystem
from castore.contract.capabilities import ChunkSource
from castore.digest import EMPTY

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def options(tmp_path: Path) -> dict[str, str]:
    path = tmp_path / "c.toml"
    path.write_text(
        '[blobservices.root]\ntype = "objectstore"\nobject_store_url = "file:./store"\n'
        'avg_chunk_size = "16 KiB"\n'
    )
    return {"composition": str(path)}


@pytest.fixture
def fs(options: dict[str, str]) -> CastoreFileSystem:
    return CastoreFileSystem(**options)


def test_pandas_and_pyarrow(
    fs: CastoreFileSystem, options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """CSV and Parquet, written in a transaction; a column moves less than 1.5 times its bytes, by chunks."""
    pandas = pytest.importorskip("pandas")
    parquet = pytest.importorskip("pyarrow.parquet")
    dataset = pytest.importorskip("pyarrow.dataset")
    numpy = pytest.importorskip("numpy")
    random = numpy.random.default_rng(1)
    frame = pandas.DataFrame({f"c{number}": random.random(50_000) for number in range(10)})
    with fs.transaction as new:
        frame.head(100).to_csv(f"castore://{EMPTY}/a.csv", index=False, storage_options=options)
        frame.to_parquet(f"castore://{EMPTY}/a.parquet", storage_options=options)
    root = f"castore://{new.root}"
    again = pandas.read_csv(f"{root}/a.csv", storage_options=options)
    pandas.testing.assert_frame_equal(again, frame.head(100))

    source = fs.blobs.capability(ChunkSource)
    moved = 0
    original = type(source).get_chunks

    def get_chunks(self: Any, sizes: Any) -> Any:
        nonlocal moved
        found = original(self, sizes)
        moved += sum(map(len, found.values()))
        return found

    monkeypatch.setattr(type(source), "get_chunks", get_chunks)
    with fs.open(f"{root}/a.parquet") as file:
        table = parquet.ParquetFile(file)
        group = table.metadata.row_group(0)
        needed = sum(
            table.metadata.row_group(number).column(3).total_compressed_size
            for number in range(table.metadata.num_row_groups)
        )
        assert group.num_columns == 10
        moved = 0
        column = table.read(columns=["c3"])
    assert column.column("c3").to_pylist() == frame["c3"].tolist()
    # A range touches one chunk more than it fills, at each of its ends; a chunk has 32 KiB at most.
    assert moved <= 1.5 * needed + 2 * (32 << 10)
    monkeypatch.undo()
    table = dataset.dataset(f"{new.root}/a.parquet", filesystem=fs).to_table(columns=["c1"])
    assert table.num_rows == 50_000


def test_dask_on_two_processes(fs: CastoreFileSystem, options: dict[str, str]) -> None:
    """It takes 5 s: the workers are processes of their own, started anew."""
    dataframe = pytest.importorskip("dask.dataframe")
    distributed = pytest.importorskip("distributed")
    with fs.transaction as new:
        for number in range(4):
            fs.pipe_file(f"{EMPTY}/{number}.csv", b"x\n" + b"".join(b"%d\n" % each for each in range(100)))
    with (
        warnings.catch_warnings(),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster),
    ):
        warnings.simplefilter("ignore")
        frame = dataframe.read_csv(f"castore://{new.root}/*.csv", storage_options=options)
        assert int(frame["x"].sum().compute()) == 4 * 4950


def test_zarr(fs: CastoreFileSystem, options: dict[str, str], tmp_path: Path) -> None:
    """Zarr 3 is asynchronous; fsspec wraps what is not."""
    zarr = pytest.importorskip("zarr")
    numpy = pytest.importorskip("numpy")
    array = zarr.create_array(str(tmp_path / "array"), shape=(100, 100), chunks=(10, 10), dtype="i4")
    array[:] = numpy.arange(10_000).reshape(100, 100)
    with fs.transaction as new:
        fs.put(f"{tmp_path}/array/", f"{EMPTY}/", recursive=True)
    again = zarr.open_array(f"castore://{new.root}", mode="r", storage_options=options)
    assert (again[:] == array[:]).all()


def test_pillow(fs: CastoreFileSystem) -> None:
    image = pytest.importorskip("PIL.Image")
    with fs.transaction as new, fs.open(f"{EMPTY}/a.png", "wb") as file:
        image.new("RGB", (3, 4), (1, 2, 3)).save(file, "PNG")
    with fs.open(f"{new.root}/a.png") as file:
        assert image.open(file).getpixel((2, 3)) == (1, 2, 3)


def test_paths_of_universal_pathlib(fs: CastoreFileSystem, options: dict[str, str]) -> None:
    """The root of a tree is where `parent` ends; no warning says that the protocol is not known."""
    upath = pytest.importorskip("upath")
    with fs.transaction as new:
        fs.pipe_file(f"{EMPTY}/sub/a.txt", b"content")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = upath.UPath(f"castore://{new.root}/sub/a.txt", **options)
    assert type(path).__name__ == "CastorePath"
    assert path.read_text() == "content"
    assert path.name == "a.txt"
    assert path.parent.name == "sub"
    root = path.parent.parent
    assert root.drive == new.root
    assert root.parent == root
    assert [each.name for each in root.iterdir()] == ["sub"]
    assert [each.name for each in root.rglob("*.txt")] == ["a.txt"]
    assert (root / "sub" / "a.txt").exists()


def test_datasets(
    fs: CastoreFileSystem, options: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`load_dataset` of files by name, by a pattern, and streamed. To import it takes a while."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    datasets = pytest.importorskip("datasets")
    with fs.transaction as new:
        for part in (1, 2):
            lines = "".join(f"{number * part},word {number}\n" for number in range(100))
            fs.pipe_file(f"{EMPTY}/data/part{part}.csv", b"n,text\n" + lines.encode())
    shared = {"storage_options": options, "split": "train", "cache_dir": str(tmp_path / "cache")}
    folder = f"castore://{new.root}/data"
    both = datasets.load_dataset("csv", data_files=f"{folder}/part*.csv", **shared)
    assert (both.num_rows, both[105]) == (200, {"n": 10, "text": "word 5"})
    streamed = datasets.load_dataset("csv", data_files=f"{folder}/part2.csv", streaming=True, **shared)
    assert list(streamed)[7] == {"n": 14, "text": "word 7"}


def test_castore_is_a_known_protocol() -> None:
    assert fsspec.get_filesystem_class("castore") is CastoreFileSystem
