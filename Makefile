# Everything a reader of the lectures runs. The plain commands behind these targets stand in docs/commands.md.
LECTURE ?=
JOBS ?= 2
NOTEBOOKS = $(sort $(wildcard notebooks/$(LECTURE)*.ipynb))
NBCONVERT = $(PYTHON) -m nbconvert --log-level=ERROR
EXECUTE = $(NBCONVERT) --execute --ExecutePreprocessor.extra_arguments=--log-level=ERROR --ExecutePreprocessor.record_timing=False

# Without VENV the environment is made here, in .venv; with it, an existing one is used as it is.
ifeq ($(origin VENV),undefined)
VENV := .venv
READY := .venv/.installed
else
READY := $(VENV)/bin/python
endif
PYTHON := $(abspath $(VENV))/bin/python

.PHONY: help lectures test lab outputs scoreboard slides site present browser student solutions zip publish pretrain check bench soak clean

help:
	@echo "make lectures   run the lectures on the embedded sample into build/lectures/  (LECTURE=29 for one)"
	@echo "make test       unit tests, then every notebook cell by cell (nbval), two files at a time  (JOBS=4)"
	@echo "make lab        open JupyterLab in notebooks/"
	@echo "make outputs    run the notebooks in place, for committing their outputs  (LECTURE_PROFILE=lecture)"
	@echo "make scoreboard write the table of results into docs/results.md (make outputs does it too)"
	@echo "make slides     reveal.js decks into build/slides/"
	@echo "make present    a lecture as slides whose cells run, in JupyterLab with jupyterlab-rise  (LECTURE=29)"
	@echo "make student    the lectures without solutions and predicted outputs into build/student/, ready to hand out"
	@echo "make solutions  the same with both into build/solutions/"
	@echo "make zip        the student edition as one archive, build/lectures.zip"
	@echo "make publish    write REPO=https://github.com/owner/name into README and lectures, with links to run them"
	@echo "make site       the web book, from the stored outputs, into build/site/"
	@echo "make pretrain   train data/weights anew on Tiny ImageNet into build/weights/, in parts  (STOP_AFTER=20)"
	@echo "make browser    decks, web book and the live network tried in a real browser (Chromium and playwright)"
	@echo "make check      ruff: lint and format of code and notebooks"
	@echo "make bench      ours against 2018-style and today's loops, side by side, 20 minutes  (ROWS=lenet for one row)"
	@echo "make soak       200 runs killed at random and resumed; many damaged checkpoints (minutes)"
	@echo "TORCH=cpu       with the first make on Linux: the small torch that knows no GPU"
	@echo "VENV=dir        use another environment than .venv"

# A new .venv gets the versions that CI runs. A torch that is in it already stays, and so does its torchvision.
# Debian's Python may come without ensurepip; then the pip outside installs into the environment.
INSTALL = $$(.venv/bin/python -m pip --version >/dev/null 2>&1 && echo .venv/bin/python -m pip install --quiet \
  || echo python3 -m pip --python .venv/bin/python install --quiet)
.venv/.installed: requirements.txt constraints.txt
	[ -x .venv/bin/python ] || python3 -m venv .venv 2>/dev/null || python3 -m venv --without-pip .venv
	$(if $(filter cpu,$(TORCH)),$(INSTALL) $$(grep ^torch constraints.txt) --index-url https://download.pytorch.org/whl/cpu)
	@echo "Installing into .venv: up to 6 GB with torch for CUDA, which takes minutes (docs/commands.md: a small one)."
	cp constraints.txt .venv/constraints.txt
	if .venv/bin/python -c "import torch; from importlib import metadata; print('torch==' + metadata.version('torch'))" \
	>.venv/torch.txt 2>/dev/null; \
	then grep -v ^torch constraints.txt | cat .venv/torch.txt - >.venv/constraints.txt; fi
	$(INSTALL) -r requirements.txt -c .venv/constraints.txt
	touch $@

lectures: export LECTURE_PROFILE := $(or $(LECTURE_PROFILE),quick)
lectures: export LECTURE_RESULTS := $(CURDIR)/build/lectures/results
lectures: $(READY)
	$(PYTHON) publishing/lectures.py $(NOTEBOOKS)

# A notebook's cells stay together in one worker (loadfile); each worker computes with one thread (conftest.py).
test: $(READY)
	$(PYTHON) -m pytest -n $(JOBS) --dist loadfile

lab: $(READY)
	cd notebooks && $(PYTHON) -m jupyterlab

# What is committed is measured here alone; a reader's own runs write to build/results/.
outputs: export LECTURE_RESULTS := $(CURDIR)/notebooks/results
outputs: $(READY)
	$(EXECUTE) --inplace $(NOTEBOOKS)
	$(PYTHON) publishing/scoreboard.py docs/results.md

scoreboard: $(READY)
	$(PYTHON) publishing/scoreboard.py docs/results.md

# Decks that are complete without network: reveal.js is laid beside them.
PAGES = build/pages-tools
$(PAGES)/.installed: $(READY) publishing/requirements.txt
	python3 -m pip --python $(PYTHON) install --quiet --upgrade --no-deps --target $(PAGES) -r publishing/requirements.txt
	touch $@

slides: $(PAGES)/.installed
	$(PYTHON) publishing/decks.py build/slides $(NOTEBOOKS)
	mkdir -p build/slides/reveal && cp -r $(PAGES)/sphinx_revealjs/_static/revealjs/* build/slides/reveal/
	@echo "Open build/slides/index.html in a browser; S opens the speaker notes."

# The lecture as a deck whose cells run: JupyterLab with jupyterlab-rise, which is installed when first asked for.
# Trusted, so that the outputs that live in the page do so before they are run.
present: $(READY)
	$(PYTHON) -c "import jupyterlab_rise" 2>/dev/null || \
	  python3 -m pip --python $(PYTHON) install --quiet "jupyterlab-rise>=0.43,<0.44"
	@echo "In JupyterLab run all cells once; Alt+R (the notebook selected, no cell being edited) shows the slides."
	cd notebooks && $(PYTHON) -m jupyter trust $(notdir $(firstword $(NOTEBOOKS))) && \
	  $(PYTHON) -m jupyterlab $(notdir $(firstword $(NOTEBOOKS)))

# Editions by the tags of the cells (docs/contributing.md), each complete in a folder laid out like this one.
WITHOUT = --TagRemovePreprocessor.enabled=True --TagRemovePreprocessor.remove_cell_tags=assert
student: WITHOUT += --TagRemovePreprocessor.remove_cell_tags=solution --TagRemovePreprocessor.remove_all_outputs_tags=answer
student: WITHOUT += --NotebookExporter.preprocessors=edition.WithoutSpeakerNotes
student: export PYTHONPATH := publishing
student solutions: $(READY)
	rm -rf build/$@ && mkdir -p build/$@
	$(NBCONVERT) --to notebook $(WITHOUT) --output-dir build/$@/notebooks $(NOTEBOOKS)
	tar -cf - --exclude=__pycache__ notebooks/helpers notebooks/results data/README.md data/weights/README.md \
	  data/weights/*.safetensors requirements.txt constraints.txt LICENSE | tar -xf - -C build/$@
	cp publishing/edition.md build/$@/README.md
	@echo "Open the lectures in build/$@/notebooks/; the folder can be handed out as it is."

zip: student
	rm -f build/lectures.zip
	cd build && $(PYTHON) -m zipfile -c lectures.zip student/
	@echo "For a learning platform: build/lectures.zip"

publish: $(READY)
	$(PYTHON) publishing/publish.py $(if $(REPO),"$(REPO)")

# The web book, complete without network: the lectures as they are stored, the documents, the helpers' docstrings.
BOOK = build/site-tools
$(BOOK)/.installed: $(READY) publishing/requirements-site.txt
	python3 -m pip --python $(PYTHON) install --quiet --upgrade --no-deps --target $(BOOK) -r publishing/requirements-site.txt
	touch $@

site: $(BOOK)/.installed
	$(PYTHON) publishing/book.py
	PYTHONPATH=$(BOOK) $(PYTHON) -m sphinx --quiet --fail-on-warning --keep-going -c docs build/site-source build/site
	@echo "Open build/site/index.html in a browser."

pretrain: $(READY)
	$(PYTHON) data/weights/lenet.py
	$(PYTHON) data/weights/pretrain.py $(and $(STOP_AFTER),--stop-after $(STOP_AFTER))

# Needs a Chromium, playwright and axe-playwright-python (pip install); what is missing is skipped, and said.
browser: slides site
	$(PYTHON) -m pytest tests/browser

check: $(READY)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

# ROWS=lenet,resnet18 runs only these; PEERS=1 adds Lightning and fastai; DOCS=1 puts the tables into docs/speed.md.
# ROWS=time_to: how long until a network has learned (docs/records.md); hours on two cores, so only when asked for.
bench: $(READY)
	$(if $(PEERS),python3 -m pip --python $(PYTHON) install --quiet --upgrade --no-deps --target build/peers \
	  -r tests/benchmarks/requirements-peers.txt)
	$(if $(filter time_to,$(ROWS)),$(PYTHON) tests/benchmarks/time_to.py $(if $(DOCS),--docs),\
	  $(PYTHON) tests/benchmarks/bench.py $(if $(ROWS),--rows $(ROWS)) $(if $(ROUNDS),--rounds $(ROUNDS)) \
	  $(if $(PEERS),--peers) $(if $(DOCS),--readme))

soak: export FUZZ_EXAMPLES := 2000
soak: $(READY)
	$(PYTHON) tests/soak.py
	$(PYTHON) -m pytest -q tests/test_fuzz_checkpoints.py

clean:
	rm -rf build
