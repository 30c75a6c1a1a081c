"""Read recordings of any kind: by libsndfile where the file is what it says, else by PyAV."""
