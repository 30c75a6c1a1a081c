from datasets.labels import audioset_labels, audioset_mids


def test_tables_are_complete_and_in_order():
    labels, mids = audioset_labels(), audioset_mids()
    assert len(labels) == len(set(labels)) == len(mids) == len(set(mids)) == 527
    known = {"Speech": ("/m/09x0r", 0), "Music": ("/m/04rlf", 137), "Field recording": ("/m/07hvw1", 526)}
    for label, (mid, index) in known.items():
        assert (labels[index], mids[index]) == (label, mid)
    assert labels[1] == "Male speech, man speaking"  # commas are part of names


def test_tables_are_read_once():
    assert audioset_labels() is audioset_labels()
