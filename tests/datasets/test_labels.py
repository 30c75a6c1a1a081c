from datasets.labels import audioset_labels, audioset_mids, audioset_strong_labels, audioset_strong_mids, default_labels


def test_tables_are_complete_and_in_order():
    labels, mids = audioset_labels(), audioset_mids()
    assert len(labels) == len(set(labels)) == len(mids) == len(set(mids)) == 527
    known = {"Speech": ("/m/09x0r", 0), "Music": ("/m/04rlf", 137), "Field recording": ("/m/07hvw1", 526)}
    for label, (mid, index) in known.items():
        assert (labels[index], mids[index]) == (label, mid)
    assert labels[1] == "Male speech, man speaking"  # commas are part of names


def test_classes_of_audioset_strong():
    labels, mids = audioset_strong_labels(), audioset_strong_mids()
    assert len(labels) == len(set(labels)) == len(mids) == len(set(mids)) == 447
    assert (labels[0], mids[0]) == ("Accelerating, revving, vroom", "/m/07q2z82")
    assert len(set(mids) & set(audioset_mids())) == 376


def test_models_without_labels_have_those_of_their_number_of_classes():
    assert default_labels(527) == audioset_labels() and default_labels(447) == audioset_strong_labels()
    assert default_labels(2) == ("class 0", "class 1")


def test_tables_are_read_once():
    assert audioset_labels() is audioset_labels()
