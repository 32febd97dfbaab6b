# Everything a reader of the lectures runs. The plain commands behind these targets stand in README.md.
LECTURE ?=
NOTEBOOKS = $(sort $(wildcard notebooks/$(LECTURE)*.ipynb))
NBCONVERT = $(PYTHON) -m nbconvert --log-level=ERROR
EXECUTE = $(NBCONVERT) --execute --ExecutePreprocessor.extra_arguments=--log-level=ERROR --ExecutePreprocessor.record_timing=False

# Without VENV the environment is made here from requirements.txt; with it, an existing one is used as it is.
ifeq ($(origin VENV),undefined)
VENV := .venv
READY := .venv/.installed
else
READY := $(VENV)/bin/python
endif
PYTHON := $(abspath $(VENV))/bin/python

.PHONY: help lectures test lab outputs scoreboard slides check bench soak clean

help:
	@echo "make lectures   run the lectures on the embedded sample into build/lectures/  (LECTURE=29 for one)"
	@echo "make test       unit tests, then every notebook cell by cell (nbval)"
	@echo "make lab        open JupyterLab in notebooks/"
	@echo "make outputs    run the notebooks in place, for committing their outputs  (LECTURE_PROFILE=lecture)"
	@echo "make scoreboard write the table of results into README.md (make outputs does it too)"
	@echo "make slides     reveal.js decks into build/slides/"
	@echo "make check      ruff: lint and format of code and notebooks"
	@echo "make bench      ours against 2018-style and today's loops, side by side, 20 minutes  (ROWS=lenet for one row)"
	@echo "make soak       200 runs killed at random and resumed; many damaged checkpoints (minutes)"
	@echo "VENV=dir        use another environment than .venv"

# Debian's Python may come without ensurepip; then the pip outside installs into the environment.
.venv/.installed: requirements.txt
	python3 -m venv .venv 2>/dev/null || python3 -m venv --without-pip .venv
	@echo "Installing into .venv: torch with CUDA is about 5 GB. README.md has a small CPU-only way."
	if .venv/bin/python -m pip --version >/dev/null 2>&1; \
	then .venv/bin/python -m pip install --quiet -r requirements.txt; \
	else python3 -m pip --python .venv/bin/python install --quiet -r requirements.txt; fi
	touch $@

lectures: export LECTURE_PROFILE := $(or $(LECTURE_PROFILE),quick)
lectures: export LECTURE_RESULTS := $(CURDIR)/build/lectures/results
lectures: $(READY)
	$(EXECUTE) --to notebook --output-dir build/lectures $(NOTEBOOKS)
	$(NBCONVERT) --to html --output-dir build/lectures $(patsubst notebooks/%,build/lectures/%,$(NOTEBOOKS))
	@echo "Executed notebooks, HTML and results: build/lectures/"

test: $(READY)
	$(PYTHON) -m pytest

lab: $(READY)
	cd notebooks && $(PYTHON) -m jupyterlab

outputs: $(READY)
	$(EXECUTE) --inplace $(NOTEBOOKS)
	cd notebooks && $(PYTHON) -m helpers.scoreboard ../README.md

scoreboard: $(READY)
	cd notebooks && $(PYTHON) -m helpers.scoreboard ../README.md

slides: $(READY)
	$(NBCONVERT) --to slides --template=slides --TemplateExporter.extra_template_basedirs=. \
	  --TagRemovePreprocessor.enabled=True --TagRemovePreprocessor.remove_input_tags=hide-input \
	  --SlidesExporter.reveal_scroll=True --SlidesExporter.reveal_width=1200 --output-dir build/slides $(NOTEBOOKS)
	@echo "Open build/slides/*.slides.html in a browser; S opens the speaker notes."

check: $(READY)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

# ROWS=lenet,resnet18 runs only these; PEERS=1 adds Lightning and fastai; README=1 puts the tables into README.md.
bench: $(READY)
	$(if $(PEERS),python3 -m pip --python $(PYTHON) install --quiet --upgrade --no-deps --target build/peers \
	  -r tests/benchmarks/requirements-peers.txt)
	$(PYTHON) tests/benchmarks/bench.py $(if $(ROWS),--rows $(ROWS)) $(if $(ROUNDS),--rounds $(ROUNDS)) \
	  $(if $(PEERS),--peers) $(if $(README),--readme)

soak: export FUZZ_EXAMPLES := 2000
soak: $(READY)
	$(PYTHON) tests/soak.py
	$(PYTHON) -m pytest -q tests/test_fuzz_checkpoints.py

clean:
	rm -rf build
