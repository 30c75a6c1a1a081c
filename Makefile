# make demo   tag a bundled recording with the bundled model; sets up .venv-light, without PyTorch, on a fresh machine
# make test   run the tests; installs what they need
# make test-slow   tests of whole studies and of compiling, several minutes
# make test-network   tests that download a released checkpoint
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LIGHT := .venv-light

.PHONY: demo test test-slow test-network lint clean

demo: $(LIGHT)/.installed
	$(LIGHT)/bin/python inference.py --backend onnx --model_name mn04_opensounds --audio_path resources/recordings/scene.ogg

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest

test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow

test-network: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m network

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

$(LIGHT)/.installed: requirements-inference.txt
	$(PYTHON) -m venv $(LIGHT)
	$(LIGHT)/bin/python -m pip install -r requirements-inference.txt
	touch $@

$(VENV)/.installed: requirements.txt | $(VENV)/bin/pip
	$(BIN)/python -m pip install -r requirements.txt
	touch $@

$(VENV)/.installed-dev: requirements-dev.txt requirements-imagenet.txt $(VENV)/.installed
	$(BIN)/python -m pip install -r requirements-dev.txt
	touch $@

clean:
	rm -rf $(VENV) $(LIGHT) .pytest_cache .ruff_cache
