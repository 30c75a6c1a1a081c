from __future__ import annotations

import csv
from pathlib import Path

import pytest

import complexity
from helpers.costs import released as costs
from models.registry import PRETRAINED

pytestmark = pytest.mark.usefixtures("empty_resources")

# millions of parameters, 1e9 MACs and mAP as the release prints them
PUBLISHED = [
    ("mn04_as", "0.98", "0.11", "0.432"),
    ("mn05_as", "1.43", "0.16", "0.443"),
    ("mn10_as", "4.88", "0.54", "0.471"),
    ("mn20_as", "17.91", "2.06", "0.478"),
    ("mn30_as", "39.09", "4.55", "0.482"),
    ("mn40_as", "68.43", "8.03", "0.484"),
    ("mn40_as_ext", "68.43", "8.03", "0.487"),
    ("mn40_as_no_im_pre", "68.43", "8.03", "0.483"),
    ("mn10_as_hop_15", "4.88", "0.36", "0.463"),
    ("mn10_as_hop_20", "4.88", "0.27", "0.456"),
    ("mn10_as_hop_25", "4.88", "0.22", "0.447"),
    ("mn10_as_mels_40", "4.88", "0.21", "0.453"),
    ("mn10_as_mels_64", "4.88", "0.27", "0.461"),
    ("mn10_as_mels_256", "4.88", "1.08", "0.474"),
    ("as published", "615.87", "72.27", "0.498"),  # the ensemble
]


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.splitlines()[-1]


def test_last_line_for_a_released_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert complexity.main(["--model_name", "mn40_as_ext(2)"]) == 0
    assert last_line(capsys) == (
        "Model 'mn40_as_ext(2)' has 68.43 million parameters and inference of a single 10-seconds audio clip requires "
        "8.03 billion multiply-accumulate operations."
    )


def test_reports_what_is_not_counted(capsys: pytest.CaptureFixture[str]) -> None:
    complexity.main([])
    first, second, last = capsys.readouterr().out.splitlines()
    assert first.startswith("Counted: convolutions, linear and recurrent layers. Not counted")
    assert "AugmentMelSTFT (1), BatchNorm2d (46)" in second
    assert last.startswith("Model 'width 1.0, mlp head' has 4.88 million parameters")


def test_a_described_network_and_front_end(capsys: pytest.CaptureFixture[str]) -> None:
    complexity.main("--model_width 1 --head_type fully_convolutional --n_mels 64 --hop_size 640".split())
    assert last_line(capsys).startswith("Model 'width 1.0, fully convolutional head' has 3.48 million parameters")
    complexity.main("--se_dims t --hop_size 480".split())  # sized for the 667 frames of the clip
    assert "requires 0.36 billion" in last_line(capsys)


def test_a_checkpoint_by_its_path(capsys: pytest.CaptureFixture[str], tiny_checkpoint: Path) -> None:
    complexity.main(["--model_name", str(tiny_checkpoint)])
    assert last_line(capsys).startswith(f"Model '{tiny_checkpoint}' has 0.12 million parameters")


def test_an_ensemble_and_the_sum_of_its_rounded_members(capsys: pytest.CaptureFixture[str]) -> None:
    """The published row of the ensemble of nine is such a sum; it is in the table of all models."""
    complexity.main("--ensemble mn10_as_hop_15 mn40_as mn40_as_ext".split())
    lines = capsys.readouterr().out.splitlines()
    assert "141.74" in lines[3] and "16.42" in lines[3]
    assert lines[-1] == (
        "Model 'ensemble of mn10_as_hop_15, mn40_as, mn40_as_ext' has 141.73 million parameters and inference of a single "
        "10-seconds audio clip requires 16.42 billion multiply-accumulate operations."
    )


def test_the_table_of_all_released_models(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    shown = {name: entry for name, entry in PRETRAINED.items() if entry.arch.family != "fmn" or name == "fmn04+tf-104_strong"}
    monkeypatch.setattr(costs, "PRETRAINED", shown)
    assert complexity.main(["--all", "--format", "markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    header, _, *rows = rows
    table = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    assert list(table) == [*shown, "ensemble of 9", "as published"]
    assert list(table["fmn04+tf-104_strong"].values()) == [
        "fmn04+tf-104_strong",
        "0.91",
        "0.27",
        "104",
        "163",
        "2048",
        "",
        "",
        "40.10",
    ]
    for name, params, macs, precision in PUBLISHED:
        row = table[name]
        assert (row["params (M)"], row["MACs (G)"], row["published mAP"]) == (params, macs, precision), name
    assert table["mn02_as"]["embedding"] == "192" and table["ensemble of 9"]["embedding"] == str(9 * 3840)
    fields = [table[name]["receptive field (frames)"] for name in ("mn10_as_fc", "mn10_as_fc_s2221", "mn10_as_fc_s2211")]
    assert fields == ["595", "467", "291"]
    assert (table["mn01_as"]["peak memory (kB)"], table["mn01_as"]["memory-efficient (kB)"]) == ("1536", "896")
    assert table["mn01_im"]["published mAP"] == ""
    assert any("BatchNorm2d (46)" in line for line in lines)


def test_the_table_as_csv_is_exact(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "PRETRAINED", {name: PRETRAINED[name] for name in ("mn01_as", "mn40_as", "mn40_as(2)")})
    complexity.main(["--all", "--format", "csv"])
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["name"] for row in rows] == ["mn01_as", "mn40_as", "mn40_as(2)", "ensemble of 2"]
    assert (rows[0]["params"], rows[0]["macs"], rows[0]["published_map"]) == ("123783", "18147487", "0.298")
    assert int(rows[3]["params"]) == 2 * int(rows[1]["params"]) == 2 * 68427303


def test_a_row_for_each_layer(capsys: pytest.CaptureFixture[str]) -> None:
    complexity.main("--layers --format csv --model_width 0.1 --head_type multihead_attention_pooling --num_classes 10".split())
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert rows[0] == {
        "layer": "network.features.0.0", "type": "Conv2d", "input": "1 x 1 x 128 x 1000", "output": "1 x 8 x 64 x 500",
        "params": "72", "MACs": "2304000", "share": rows[0]["share"],
    }  # fmt: skip
    total = sum(int(row["MACs"]) for row in rows)
    assert sum(float(row["share"].rstrip("%")) for row in rows) == pytest.approx(100, abs=0.5)
    assert rows[0]["share"] == f"{2304000 / total:.2%}"
    assert rows[-1]["params"] == str((96 + 1) * 2 * 4 * 10) and rows[-1]["MACs"] == str(32 * (96 + 1) * 80)
    complexity.main("--layers --ensemble mn01_as mn02_as".split())
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("members.1.network.classifier.5 ") for line in lines) and "0.45 million" in lines[-1]


def test_all_stands_alone(capsys: pytest.CaptureFixture[str]) -> None:
    for options in ("--all --layers", "--all --model_width 2", "--all --reduced_tail"):
        with pytest.raises(SystemExit):
            complexity.main(options.split())
        assert "no other option than --format" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--model_name mn10_as_fc_s2221 --strides 2 2 2 2", "contradicts mn10_as_fc_s2221, which has .2, 2, 2, 1."),
        ("--model_name mn10_as --num_classes 50", "which has 527"),
        ("--model_name mn10_ass", "did you mean mn10_as"),
        ("--ensemble mn10_as mn11_as", "unknown model 'mn11_as'"),
        ("--model_name mn10_as --model_width 2", "contradicts mn10_as"),
        ("--ensemble mn10_as mn10_as_mels_40 --n_mels 128", "contradict mn10_as_mels_40"),
    ],
)
def test_mistakes(options: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        complexity.main(options.split())
