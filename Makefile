# make demo   tag a bundled recording with the bundled model; sets up .venv-light, without PyTorch, on a fresh machine
# make test   run the tests; installs what they need
# make test-slow   tests of whole studies and of compiling, faults at every write, several minutes
# make test-network   tests that download a released checkpoint
# make test-hear   the HEAR benchmark's validator and evaluation kit on hear_mn.py, in .venv-hear
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LIGHT := .venv-light
HEAR := .venv-hear

.PHONY: demo test test-slow test-network test-hear lint clean

demo: $(LIGHT)/.installed
	$(LIGHT)/bin/python inference.py --backend onnx --model_name mn04_opensounds --audio_path resources/recordings/scene.ogg

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n auto

test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow

test-network: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m network

test-hear: $(HEAR)/.installed
	$(BIN)/python -m pytest -m hear

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

$(LIGHT)/.installed: requirements-inference.txt
	$(PYTHON) -m venv $(LIGHT)
	$(LIGHT)/bin/python -m pip install -r requirements-inference.txt
	touch $@

$(VENV)/.installed: requirements.txt constraints.txt | $(VENV)/bin/pip
	$(BIN)/python -m pip install -r requirements.txt -c constraints.txt
	touch $@

$(VENV)/.installed-dev: requirements-dev.txt requirements-imagenet.txt $(VENV)/.installed
	$(BIN)/python -m pip install -r requirements-dev.txt
	touch $@

# The two packages pin what was new in 2021, so they come without what they ask for; torch is that of $(VENV).
$(HEAR)/.installed: requirements-hear.txt $(VENV)/.installed-dev
	$(PYTHON) -m venv $(HEAR)
	packages='import sysconfig; print(sysconfig.get_path("purelib"))'; \
		$(BIN)/python -c "$$packages" > "$$($(HEAR)/bin/python -c "$$packages")/project.pth"
	$(HEAR)/bin/python -m pip install --no-deps --ignore-requires-python hearvalidator==2021.0.6 heareval==2021.1.3
	$(HEAR)/bin/python -m pip install -r requirements-hear.txt
	touch $@

clean:
	rm -rf $(VENV) $(LIGHT) $(HEAR) .pytest_cache .ruff_cache build dist *.egg-info
