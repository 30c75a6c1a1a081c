"""Loading is strict, surgery touches the head alone, and what we save can be loaded."""

from __future__ import annotations

import errno
import logging
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models import assets, checkpoints
from models.checkpoints import CheckpointError
from models.config import Arch, MelConfig
from models.errors import UserError
from models.MobileNetV3 import get_model
from models.network import MobileNetV3
from models.registry import BUNDLED, PRETRAINED, Pretrained

HEADS = {"mlp": "classifier.5.", "fully_convolutional": "classifier.", "multihead_attention_pooling": "classifier."}


@pytest.fixture(scope="module")
def own_bytes(tmp_path_factory, random_state) -> bytes:
    """A checkpoint of this project whose every setting differs from the default."""
    arch = Arch(3, 0.1, True, True, (2, 2, 2, 1), "multihead_attention_pooling", 2, 64, 50, se_dims="tc", se_agg="avg", se_r=2)
    model = MobileNetV3(arch, MelConfig(n_mels=64, hop_size=640), ["bark", "meow", "moo"])
    model.load_state_dict(random_state(arch))
    path = tmp_path_factory.mktemp("own") / "runs" / "own.pt"
    checkpoints.save(path, model, epoch=7, metrics={"mAP": 0.25}, args={"lr": 1e-3, "name": "x", "folds": [1, 2]})
    return path.read_bytes()


@pytest.fixture
def own(tmp_path, own_bytes) -> Path:
    """That checkpoint in a folder of its own."""
    path = tmp_path / "runs" / "own.pt"
    path.parent.mkdir()
    path.write_bytes(own_bytes)
    return path


# released models, and the head


def serve(release, monkeypatch, pickled, random_state, arch: Arch) -> tuple[str, dict[str, torch.Tensor]]:
    """Offer random weights of `arch` as a released model; return its name and the weights."""
    monkeypatch.setitem(PRETRAINED, "mn01_test", Pretrained("mn01_test.pt", arch, MelConfig(hop_size=480), 0.1))
    state = random_state(arch)
    release.files["mn01_test.pt"] = pickled(state)
    return "mn01_test", state


@pytest.mark.parametrize("head_type", HEADS)
@pytest.mark.parametrize("num_classes", [10, 1])
def test_other_class_count_renews_exactly_the_head(head_type, num_classes, release, monkeypatch, pickled, random_state, caplog):
    arch = Arch(527, 0.1, head_type=head_type)
    name, state = serve(release, monkeypatch, pickled, random_state, arch)
    with caplog.at_level(logging.WARNING):
        model = get_model(num_classes=num_classes, pretrained_name=name)
    new = model.state_dict()
    assert list(new) == list(state)
    renewed = {key for key in new if new[key].shape != state[key].shape or not torch.equal(new[key], state[key])}
    assert renewed == {key for key in state if key.startswith(HEADS[head_type])}
    assert model.arch == replace(arch, num_classes=num_classes)
    assert model.mel == MelConfig(hop_size=480)
    assert model.eval()(torch.randn(1, 1, 128, 60))[0].shape == (1, num_classes)
    for key in renewed:
        assert key in caplog.text
    assert str(num_classes) in caplog.text and "527" in caplog.text


def test_classes_for_a_model_without_renew_the_whole_head(tmp_path, caplog):
    checkpoints.save(tmp_path / "features.pt", get_model(0, width_mult=0.1))
    with caplog.at_level(logging.WARNING):
        model = get_model(3, str(tmp_path / "features.pt"))
    assert all(key in caplog.text for key in model.state_dict() if key.startswith("classifier."))


@pytest.mark.parametrize("head_type", HEADS)
def test_same_class_count_keeps_everything_silently(head_type, release, monkeypatch, pickled, random_state, caplog):
    name, state = serve(release, monkeypatch, pickled, random_state, Arch(527, 0.1, head_type=head_type))
    with caplog.at_level(logging.INFO):
        model = get_model(pretrained_name=name)
    new = model.state_dict()
    assert all(torch.equal(new[key], state[key]) for key in state) and list(new) == list(state)
    assert not caplog.text


def test_training_a_loaded_model_leaves_its_file_alone_and_the_model_survives_the_file(
    release, resources, monkeypatch, pickled, random_state
):
    """The file is mapped: privately, and for as long as a tensor needs it."""
    name, state = serve(release, monkeypatch, pickled, random_state, Arch(3, 0.1))
    model = get_model(pretrained_name=name).train()
    path = resources / "mn01_test.pt"
    before = path.read_bytes()
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in model.parameters())
    model(torch.randn(2, 1, 128, 40))[0].sum().backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    assert path.read_bytes() == before
    assert not torch.equal(model.features[0][0].weight, state["features.0.0.weight"])
    again = checkpoints.load_model(name)
    replacement = path.with_name("other.pt")
    replacement.write_bytes(b"another file")
    replacement.replace(path)
    path.unlink()
    assert all(torch.equal(tensor, state[key]) for key, tensor in again.state_dict().items())


@pytest.mark.parametrize("own_file", [False, True])
def test_weights_of_another_type_or_layout_become_the_network_s_own(
    own_file, release, tmp_path, monkeypatch, pickled, random_state
):
    arch = Arch(3, 0.1)
    state = random_state(arch)
    stored = {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in state.items()}
    stored = {key: tensor.to(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor for key, tensor in stored.items()}
    stored["classifier.5.bias"] = torch.tensor(0.5).expand(3)  # one number in the file
    if own_file:
        checkpoints.save(tmp_path / "own.pt", MobileNetV3(arch))
        content = torch.load(tmp_path / "own.pt", weights_only=True)
        torch.save(content | {"model": stored}, tmp_path / "own.pt")
        name = str(tmp_path / "own.pt")
    else:
        name, _ = serve(release, monkeypatch, pickled, random_state, arch)
        release.files["mn01_test.pt"] = pickled(stored)
    new, fresh = checkpoints.load_model(name).state_dict(), MobileNetV3(arch).state_dict()
    for key, tensor in new.items():
        assert (tensor.dtype, tensor.stride()) == (fresh[key].dtype, fresh[key].stride()), key
        assert torch.equal(tensor, stored[key].to(tensor.dtype)), key


@pytest.mark.parametrize("head_type", HEADS)
def test_the_class_count_is_the_checkpoint_s_unless_another_is_given(head_type, tmp_path):
    network = MobileNetV3(Arch(5, 0.1, head_type=head_type), labels="abcde")
    checkpoints.save(tmp_path / "five.pt", network)
    model = get_model(pretrained_name=str(tmp_path / "five.pt"))
    assert model.arch.num_classes == 5 and model.labels == tuple("abcde")
    assert all(torch.equal(tensor, network.state_dict()[key]) for key, tensor in model.state_dict().items())
    with pytest.raises(ValueError, match="num_classes"):
        get_model(-1, str(tmp_path / "five.pt"))


def test_arguments_that_contradict_a_released_model_are_value_errors(release, monkeypatch, pickled, random_state):
    """Defaults that are spelled out, too."""
    arch = Arch(527, 0.1, True, True, (2, 2, 2, 1), "fully_convolutional", input_dim_f=64, se_dims="f", se_agg="avg", se_r=2)
    name, _ = serve(release, monkeypatch, pickled, random_state, arch)
    arguments = {"width_mult": 1.0, "strides": (2, 2, 2, 2), "head_type": "mlp", "input_dim_f": 128, "multihead_attention_heads": 2}
    arguments |= {"se_dims": "c", "se_agg": "max", "se_r": 4, "reduced_tail": False, "dilated": False}
    for argument, value in arguments.items():
        with pytest.raises(ValueError, match=argument) as caught:
            get_model(pretrained_name=name, **{argument: value})
        assert name in str(caught.value)


def test_arguments_that_agree_are_welcome(release, monkeypatch, pickled, random_state):
    name, _ = serve(release, monkeypatch, pickled, random_state, Arch(527, 0.1))
    model = get_model(pretrained_name=name, width_mult=0.1, strides=[2, 2, 2, 2], head_type="mlp", input_dim_f=128, input_dim_t=400)
    assert model.arch == Arch(527, 0.1)  # input_dim_t sizes no weight here


@pytest.mark.parametrize(("wrong", "near"), [("mn10_a", "mn10_as"), ("mn40_as(4)", "mn40_as(2)"), ("MN04_as", "mn04_as")])
def test_unknown_name_lists_near_ones(wrong, near, release):
    for load in (checkpoints.load, lambda name: get_model(pretrained_name=name), checkpoints.architecture):
        with pytest.raises(ValueError) as caught:
            load(wrong)
        assert repr(wrong) in str(caught.value)
        assert near in str(caught.value).split("Known")[0]
    assert release.paths == []


def test_unknown_name_that_resembles_nothing_lists_all():
    with pytest.raises(ValueError) as caught:
        checkpoints.load("resnet")
    assert all(name in str(caught.value) for name in [*PRETRAINED, *BUNDLED])


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_model_is_found_next_to_the_code(name, own, release, tmp_path, monkeypatch):
    """Also when EFFICIENTAT_RESOURCES points elsewhere, and without any network."""
    beside = tmp_path / "beside"
    beside.mkdir()
    (beside / BUNDLED[name]).write_bytes(own.read_bytes())
    monkeypatch.setattr(assets, "BUNDLED_DIR", beside)
    model = checkpoints.load_model(name)
    assert model.labels == ("bark", "meow", "moo")
    assert checkpoints.architecture(name) == (model.arch, model.mel)
    assert release.paths == []


# project checkpoints


def test_own_checkpoint_round_trip(own):
    for name in (own, str(own)):
        checkpoint = checkpoints.load(name)
        assert (checkpoint.epoch, checkpoint.metrics) == (7, {"mAP": 0.25})
        assert checkpoint.args == {"lr": 1e-3, "name": "x", "folds": [1, 2]}
        assert checkpoint.labels == ("bark", "meow", "moo")
        assert checkpoint.mel == MelConfig(n_mels=64, hop_size=640)
        assert checkpoint.arch.se_dims == "tc" and checkpoint.arch.strides == (2, 2, 2, 1)
    model = checkpoints.load_model(own)
    assert not model.training
    assert (model.arch, model.mel, model.labels) == (checkpoint.arch, checkpoint.mel, checkpoint.labels)
    assert checkpoints.architecture(own) == (checkpoint.arch, checkpoint.mel)


def test_own_checkpoint_holds_plain_data_only(own):
    content = torch.load(own, weights_only=True)
    assert set(content) == {"model", "family", "arch", "mel", "labels", "single_label", "clip_seconds", "epoch", "metrics", "args"}
    assert content["labels"] == ["bark", "meow", "moo"] and content["arch"]["strides"] == [2, 2, 2, 1]


def test_minimal_checkpoint(tmp_path):
    checkpoints.save(tmp_path / "a.pt", MobileNetV3(Arch(1, 0.1)))
    checkpoint = checkpoints.load(tmp_path / "a.pt")
    assert (checkpoint.labels, checkpoint.epoch, checkpoint.metrics, checkpoint.args) == (None, None, {}, {})
    assert checkpoint.arch == Arch(1, 0.1)


def test_the_length_of_training_clips_travels_with_the_weights(tmp_path):
    checkpoints.save(tmp_path / "a.pt", MobileNetV3(Arch(1, 0.1), clip_seconds=2.5))
    assert checkpoints.load_model(tmp_path / "a.pt").clip_seconds == 2.5
    checkpoints.save(tmp_path / "b.pt", MobileNetV3(Arch(1, 0.1)))
    assert checkpoints.load_model(tmp_path / "b.pt").clip_seconds is None
    content = torch.load(tmp_path / "b.pt", weights_only=True)
    del content["clip_seconds"]
    torch.save(content | {"args": {"clip_seconds": 4}}, tmp_path / "older.pt")
    assert checkpoints.load_model(tmp_path / "older.pt").clip_seconds == 4
    torch.save(content | {"args": []}, tmp_path / "plain.pt")
    assert checkpoints.load_model(tmp_path / "plain.pt").clip_seconds is None
    for wrong in (0.0, float("nan"), float("inf"), "3"):
        torch.save(content | {"clip_seconds": wrong}, tmp_path / "damaged.pt")
        with pytest.raises(checkpoints.CheckpointError):
            checkpoints.load(tmp_path / "damaged.pt")


def test_get_model_takes_a_path(own):
    model = get_model(num_classes=3, pretrained_name=str(own))
    assert model.labels == ("bark", "meow", "moo")
    model = get_model(num_classes=7, pretrained_name=str(own))
    assert model.labels is None and model.arch.num_classes == 7
    assert model.mel == MelConfig(n_mels=64, hop_size=640)
    assert model.eval()(torch.zeros(1, 1, 64, 50))[0].shape == (1, 7)
    for contradiction in ({"width_mult": 1.0}, {"se_dims": "f"}, {"input_dim_t": 100}, {"se_agg": "min"}):
        with pytest.raises(ValueError, match=next(iter(contradiction))):
            get_model(num_classes=3, pretrained_name=str(own), **contradiction)


def test_own_checkpoint_stays_when_the_source_moves_on(own):
    """Weights are copied: changing the loaded model does not change what was loaded."""
    checkpoint = checkpoints.load(own)
    first = checkpoints.build(checkpoint)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.zero_()
    second = checkpoints.build(checkpoint)
    assert all(torch.equal(tensor, second.state_dict()[key]) for key, tensor in checkpoint.state.items())
    assert any(parameter.any() for parameter in second.parameters())


def test_numpy_scalars_and_paths_become_plain_data(tmp_path):
    metrics, args = {"mAP": np.float64(0.5), "ROC_AUC": np.float32(0.5)}, {"dataset_dir": Path("data")}
    checkpoints.save(tmp_path / "a.pt", MobileNetV3(Arch(2, 0.1)), metrics=metrics, args=args)
    checkpoint = checkpoints.load(tmp_path / "a.pt")
    assert (checkpoint.metrics, checkpoint.args) == ({"mAP": 0.5, "ROC_AUC": 0.5}, {"dataset_dir": "data"})


def test_save_replaces_and_makes_folders(own, left_in):
    path = own.parent / "deep" / "er" / "new.pt"
    model = checkpoints.load_model(own)
    for epoch in (1, 2):
        checkpoints.save(path, model, epoch=epoch)
    assert checkpoints.load(path).epoch == 2
    assert left_in(path.parent) == ["new.pt"]


# files that are not checkpoints


@pytest.mark.parametrize("name", ["missing.pt", "no/such/folder/model.pt", "no/such/file"])
def test_missing_path_is_file_not_found(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (name, tmp_path / name):
        with pytest.raises(FileNotFoundError, match=name):
            checkpoints.load(path)
    with pytest.raises(FileNotFoundError):
        get_model(pretrained_name=name)


def test_folder_is_an_error_that_names_it(tmp_path):
    with pytest.raises((FileNotFoundError, IsADirectoryError, CheckpointError), match=tmp_path.name):
        checkpoints.load(tmp_path)


def test_bare_state_dict_is_a_checkpoint_error_with_a_remedy(tmp_path, mn01_bytes):
    (tmp_path / "bare.pt").write_bytes(mn01_bytes)
    with pytest.raises(CheckpointError, match="load_state_dict"):
        checkpoints.load(tmp_path / "bare.pt")


def with_arch(content: dict, **fields: object) -> dict:
    return content | {"arch": content["arch"] | fields}


def with_weights(content: dict, change: Callable[[torch.Tensor], torch.Tensor]) -> dict:
    name = "features.3.block.0.0.weight"
    return content | {"model": content["model"] | {name: change(content["model"][name])}}


DAMAGES = {
    "no arch": lambda content: {key: value for key, value in content.items() if key != "arch"},
    "arch field missing": lambda content: content | {"arch": {"width_mult": 0.1}},
    "arch field unknown": lambda content: with_arch(content, depth=2),
    "arch field illegal": lambda content: with_arch(content, head_type="x"),
    "arch field of wrong type": lambda content: with_arch(content, width_mult="wide"),
    "arch is none": lambda content: content | {"arch": None},
    "mel illegal": lambda content: content | {"mel": content["mel"] | {"fmax": 0.0}},
    "weights of another width": lambda content: with_arch(content, width_mult=1.0),
    "tensor missing": lambda content: content | {"model": dict(list(content["model"].items())[1:])},
    "tensor too many": lambda content: content | {"model": content["model"] | {"extra": torch.zeros(1)}},
    "no tensor": lambda content: content | {"model": content["model"] | {"features.0.0.weight": 3}},
    "no state dict": lambda content: content | {"model": None},
    "weights of another type": lambda content: with_weights(content, lambda tensor: (tensor * 10).to(torch.int8)),
    "sparse weights": lambda content: with_weights(content, lambda tensor: tensor.to_sparse()),
    "a weight that is not a number": lambda content: with_weights(content, lambda tensor: tensor.fill_(float("nan"))),
    "an infinite weight": lambda content: with_weights(content, lambda tensor: tensor.index_fill(0, torch.tensor(1), -torch.inf)),
    "labels are numbers": lambda content: content | {"labels": [1, 2, 3]},
    "labels are a text": lambda content: content | {"labels": "abc"},
    "a label too few": lambda content: content | {"labels": ["bark", "meow"]},
    "epoch is a text": lambda content: content | {"epoch": "last"},
    "metrics are a number": lambda content: content | {"metrics": 5},
    "mel is a list": lambda content: content | {"mel": [1]},
    "a transform that fills the memory": lambda content: content | {"mel": content["mel"] | {"n_fft": 1 << 30}},
    "a head that fills the memory": lambda content: with_arch(content, num_classes=1 << 40),
    "arch field of another type": lambda content: with_arch(content, se_dims=torch.ones(2)),
    "a list": lambda content: [content],
    "nothing": lambda content: None,
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_own_checkpoint_that_does_not_fit_is_a_checkpoint_error(kind, own):
    torch.save(DAMAGES[kind](torch.load(own, weights_only=True)), own)
    with pytest.raises(CheckpointError, match="own.pt") as error:
        checkpoints.load(own)
    assert "\n" not in str(error.value) and len(str(error.value)) < 2000


def test_large_weights_are_finite_though_their_sum_is_not(own):
    content = torch.load(own, weights_only=True)
    torch.save(with_weights(content, lambda tensor: tensor.fill_(1e38)), own)
    assert checkpoints.load_model(own).features[3].block[0][0].weight.max() == np.float32(1e38)


def test_a_compressed_archive_is_refused_before_it_is_unpacked(own):
    """Torch reads one, and it may be a thousand times as large."""
    with zipfile.ZipFile(own) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(own, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
        archive.writestr("own/data/bomb", bytes(10_000_000))
    with pytest.raises(CheckpointError, match="own.pt"):
        checkpoints.load(own)


@pytest.mark.parametrize("name", [None, 5, b"mn10_as", ["mn10_as"], "a\0b.pt"], ids=repr)
def test_what_names_no_model_is_one_error(name):
    for load in (checkpoints.load, checkpoints.architecture):
        with pytest.raises(UserError):
            load(name)


@pytest.mark.parametrize("body", [b"", b"hello", b"<html></html>", b"\x80\x02.", bytes(100)], ids=repr)
def test_damaged_own_file_is_a_checkpoint_error_and_stays(body, own):
    own.write_bytes(body)
    with pytest.raises(CheckpointError, match="own.pt"):
        checkpoints.load(own)
    assert own.read_bytes() == body


def test_a_full_disk_is_an_error_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch reports it: its writer's failure to finish hides that of the disk."""

    def save(content: object, file: object) -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        finally:
            raise RuntimeError("unexpected pos 64 vs 0")

    path = tmp_path / "last.pt"
    checkpoints.save(path, get_model(width_mult=0.1))
    before = path.read_bytes()
    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(OSError) as error:
        checkpoints.save(path, get_model(width_mult=0.1))
    assert error.value.errno == errno.ENOSPC and error.value.filename == str(path)
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_a_new_last_layer_is_the_one_that_a_fresh_network_of_the_same_seed_has(tiny_checkpoint: Path) -> None:
    torch.manual_seed(3)
    fresh = get_model(5, width_mult=0.1)
    torch.manual_seed(3)
    tuned = get_model(5, tiny_checkpoint)
    assert all(torch.equal(*pair) for pair in zip(fresh.classifier[5].parameters(), tuned.classifier[5].parameters(), strict=True))
    assert not torch.equal(fresh.features[0][0].weight, tuned.features[0][0].weight)
