# make demo   tag a bundled recording with the bundled model; sets up .venv-light, without PyTorch, on a fresh machine
# make web    the page that tags sound in the browser, at http://127.0.0.1:8000/, without PyTorch; downloads ONNX Runtime from npm's registry
# make test   run the tests; installs what they need
# make test-slow   tests of whole studies and of compiling, faults at every write, several minutes
# make test-network   tests that download a released checkpoint
# make lock   write the exact releases and hashes of all dependencies into locks/ again
# make audit   look for known vulnerabilities in the releases of locks/
# make sbom   list what the light install holds, in CycloneDX's format, in build/sbom-light.json
# make test-mobile   files for LiteRT and ExecuTorch in their runtimes, in .venv-litert and .venv-executorch
# make web-test   the page in Debian's chromium, in .venv-web
# make web-test-slow   an hour of sound in it
# make test-archive   Ray with killed workers, drivers and machines, and a full disk, several minutes
# make test-cuda   tests that need a CUDA device, and the benchmark of a GPU, 10 minutes at most
# make test-hear   the HEAR benchmark's validator and evaluation kit on hear_mn.py, in .venv-hear
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LIGHT := .venv-light
HEAR := .venv-hear
WEB := .venv-web
LITERT := .venv-litert
EXECUTORCH := .venv-executorch
TOOLS := .venv-tools
REQUIREMENTS := $(wildcard requirements*.txt)

.PHONY: demo web web-test web-test-slow test test-slow test-network test-mobile test-archive test-cuda test-hear lint lock audit sbom clean

demo: $(LIGHT)/.installed
	$(LIGHT)/bin/python inference.py --backend onnx --model_name mn04_distilled --audio_path resources/recordings/scene.ogg

web: $(LIGHT)/.installed
	$(LIGHT)/bin/python -m web

web-test: $(WEB)/.installed
	$(WEB)/bin/python -m pytest -m "web and not slow" --confcutdir tests/web tests/web

web-test-slow: $(WEB)/.installed
	$(WEB)/bin/python -m pytest -m "web and slow" -s --confcutdir tests/web tests/web

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n auto --dist worksteal

test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow

test-network: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m network

test-archive: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m archive

test-cuda: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m cuda
	$(BIN)/python -m benchmarks.gpu --figure build/gpu.png

test-hear: $(HEAR)/.installed
	$(BIN)/python -m pytest -m hear

test-mobile: $(LITERT)/.installed $(EXECUTORCH)/.installed
	$(LITERT)/bin/python -m pytest -m mobile -k litert tests/helpers/export
	$(EXECUTORCH)/bin/python -m pytest -m mobile -k executorch tests/helpers/export

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

lock: $(TOOLS)/.installed
	for file in $(REQUIREMENTS); do \
		case $$file in requirements-inference.txt) options="--python-version 3.10";; *) options="--python-version 3.11 -c constraints.txt";; esac; \
		echo "$$file"; \
		$(TOOLS)/bin/uv pip compile --quiet --universal --generate-hashes --custom-compile-command "make lock" $$options \
			$$file --output-file locks/$$file || exit 1; \
	done

audit: $(TOOLS)/.installed
	for file in locks/*.txt; do echo "$$file"; $(TOOLS)/bin/pip-audit --strict --disable-pip --require-hashes -r $$file || exit 1; done

sbom: $(TOOLS)/.installed $(LIGHT)/.installed
	mkdir -p build
	$(TOOLS)/bin/cyclonedx-py environment --output-reproducible --output-file build/sbom-light.json $(LIGHT)/bin/python

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

$(LIGHT)/.installed: locks/requirements-inference.txt
	$(PYTHON) -m venv $(LIGHT)
	$(LIGHT)/bin/python -m pip install --require-hashes -r locks/requirements-inference.txt
	touch $@

$(WEB)/.installed: locks/requirements-web.txt
	$(PYTHON) -m venv $(WEB)
	$(WEB)/bin/python -m pip install --require-hashes -r locks/requirements-web.txt
	touch $@

$(TOOLS)/.installed: locks/requirements-tools.txt
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --require-hashes -r locks/requirements-tools.txt
	touch $@

$(VENV)/.installed: requirements.txt constraints.txt | $(VENV)/bin/pip
	$(BIN)/python -m pip install -r requirements.txt -c constraints.txt
	touch $@

$(VENV)/.installed-dev: requirements-dev.txt requirements-imagenet.txt requirements-events.txt requirements-archive.txt $(VENV)/.installed
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

# Both exporters ask for torch, so each gets one of its own; the tests need pytest and h5py.
$(LITERT)/.installed $(EXECUTORCH)/.installed: .venv-%/.installed: requirements-%.txt constraints.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install -r $< -c constraints.txt pytest h5py
	touch $@

clean:
	rm -rf $(VENV) $(LIGHT) $(HEAR) $(WEB) $(LITERT) $(EXECUTORCH) $(TOOLS) .pytest_cache .ruff_cache build dist *.egg-info
