"""The published tables of NAS-Bench-201."""

import gzip
import json

import numpy as np
import pytest
from bitfront.errors import InvalidInput
from bitfront.search.families.nasbench201 import (
    CELL_SPACE,
    NasBench201,
    TabularNas201,
    cell_choices,
    cell_text,
    stored_scores,
)
from scipy.stats import spearmanr

HEADER = "arch,cellstr,cifar10-test,cifar10-val,cifar100-test,cifar100-val,imagenet-test,imagenet-val,1080ti_1,fpga"
CELLS = (
    "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
    "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|avg_pool_3x3~0|none~1|nor_conv_3x3~2|",
)


def written(folder, header=HEADER):
    rows = [f"{index},{cell},1{index},2{index},3,4,5,6,0.5,{index}.25" for index, cell in enumerate(CELLS)]
    with gzip.open(folder / "nasbench201_accuracy_latency.csv.gz", "wt") as file:
        file.write("\n".join([header, *rows]) + "\n")
    return folder


def test_a_table_is_read_by_column(tmp_path):
    table = TabularNas201.read(written(tmp_path))
    assert table.cells == CELLS
    assert list(table.latency) == ["1080ti_1", "fpga"]
    np.testing.assert_array_equal(table.accuracy["cifar10"], [20, 21])
    np.testing.assert_array_equal(table.test_accuracy["ImageNet16-120"], [5, 5])
    np.testing.assert_array_equal(table.latency["fpga"], [0.25, 1.25])
    assert [table.index(table.choices(row)) for row in range(len(table))] == [0, 1]
    assert cell_text(table.choices(1)) == CELLS[1]
    with pytest.raises(InvalidInput, match="holds 2 networks"):
        table.index(CELL_SPACE.largest())


def test_a_missing_file_or_column_is_named(tmp_path):
    with pytest.raises(InvalidInput, match="is not there"):
        TabularNas201.read(tmp_path)
    with pytest.raises(InvalidInput, match="no column 'cifar100-val'"):
        TabularNas201.read(written(tmp_path, HEADER.replace("cifar100-val", "other")))


def test_published_scores_are_read_by_cell(tmp_path):
    rows = {
        "(0, 2, 3, 1, 4, 1)": {"val_accuracy": 80.5, "nwot": {"score": 3.5, "time": 1}, "idx": "1", "arch": ""},
        "(1, 1, 1, 1, 1, 1)": {"val_accuracy": 10.0, "nwot": {"score": -1e8, "time": 1}, "idx": "2", "arch": ""},
    }
    (tmp_path / "nasbench201_zero_cost.json").write_text(json.dumps({"cifar10": rows}))
    frame = stored_scores(tmp_path)
    # their edges: 0-1, 0-2, 0-3, 1-2, 1-3, 2-3
    named = "|skip_connect~0|+|nor_conv_3x3~0|none~1|+|nor_conv_1x1~0|avg_pool_3x3~1|none~2|"
    assert list(frame.index) == [named, CELLS[0]]
    np.testing.assert_array_equal(frame["nwot"], [3.5, -np.inf])
    np.testing.assert_array_equal(frame["accuracy"], [80.5, 10.0])
    with pytest.raises(InvalidInput, match="not for 'svhn'"):
        stored_scores(tmp_path, "svhn")
    with pytest.raises(InvalidInput, match="is not there"):
        stored_scores(tmp_path / "elsewhere")


@pytest.mark.reference
def test_the_whole_table(reference_data):
    table = TabularNas201.read(reference_data)
    assert len(table) == 15625
    assert len(table.latency) == 23
    assert sorted(table.accuracy) == ["ImageNet16-120", "cifar10", "cifar100"]
    columns = [*table.accuracy.values(), *table.test_accuracy.values(), *table.latency.values()]
    assert all(len(each) == 15625 and np.isfinite(each).all() and (each > 0).all() for each in columns)
    for row in range(0, len(table), 97):
        assert table.index(table.choices(row)) == row
        assert cell_text(table.choices(row)) == table.cells[row]


@pytest.mark.reference
@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "ImageNet16-120"])
def test_both_tables_speak_of_the_same_networks(reference_data, dataset):
    table, scores = TabularNas201.read(reference_data), stored_scores(reference_data, dataset)
    rows = [table.index(cell_choices(cell)) for cell in scores.index]
    assert len(set(rows)) == len(rows) >= 724
    # 12 epochs against 200; with the edges in another order it is below 0.6
    assert spearmanr(table.accuracy[dataset][rows], scores["accuracy"])[0] > 0.75


@pytest.mark.reference
@pytest.mark.parametrize(("dataset", "classes"), [("cifar10", 10), ("cifar100", 100), ("ImageNet16-120", 120)])
def test_parameters_are_those_of_the_paper(reference_data, dataset, classes):
    scores = stored_scores(reference_data, dataset)
    family = NasBench201(classes=classes)
    for cell in scores.index[::24]:
        network = family.build(cell_choices(cell))
        assert sum(each.numel() for each in network.parameters()) == round(scores["params"][cell] * 1e6)
