"""Audio in, clips out: decoding, the mp3-in-HDF5 schema, label tables, augmentation and the splits of each data set."""
