"""A model card from what a run recorded."""

from __future__ import annotations

from collections.abc import Sequence

from mtbert.config import Config
from mtbert.data.terms import TERMS
from mtbert.results.facts import facts_about, remarks_on
from mtbert.results.record import RunRecord


def model_card(record: RunRecord, config: Config, onnx: Sequence[str] = ()) -> str:
    """Markdown with the front matter that model hubs read; every figure comes from ``record``."""
    sections = [
        _front_matter(record),
        f"# {record.experiment} (mtbert)\n\nOne BERT encoder finetuned for {_listed(list(config.tasks))} together.",
        "## How it was trained\n\n" + _bullets([("command", f"`{record.command}`"), *facts_about([record], [])]),
        "## Dev figures\n\n" + _figures(record),
        "## Use\n\n" + _use(config, onnx),
        "## Data and terms\n\n" + _terms(record),
    ]
    return "\n\n".join(sections) + "\n"


def _front_matter(record: RunRecord) -> str:
    lines = ["---", "library_name: sentence-transformers", "pipeline_tag: sentence-similarity", "language: en"]
    lines += ["tags: [mtbert, bert, multitask]", f"datasets: [{', '.join(record.rows)}]", "---"]
    return "\n".join(lines)


def _figures(record: RunRecord) -> str:
    best = record.best
    rows = [f"Epoch {best.epoch} of phase {best.phase}, the one with the best dev average.", "", "| metric | value |"]
    rows.append("| --- | --: |")
    for name, value in best.metrics.items():
        if name.startswith("dev/"):
            rows.append(f"| {name.removeprefix('dev/')} | {'undefined' if value is None else f'{value:.4f}'} |")
    remarks = remarks_on([record], True, (), ())
    return "\n".join(rows + [""] * bool(remarks) + [f"{remark}." for remark in remarks])


def _use(config: Config, onnx: Sequence[str]) -> str:
    texts = {dataset.text for dataset in config.datasets.values()}
    lines = [
        "The folder is a BERT in the published format: `transformers.AutoModel.from_pretrained(folder)`, "
        "`SentenceTransformer(folder)`, or `encoder=folder encoder.source=folder:... "
        f"encoder.pooling={config.encoder.pooling}` in mtbert; `heads.safetensors` holds the tasks' heads.",
        "",
        f"Text was normalised before the tokenizer ({', '.join(sorted(texts))}: see `mtbert.data.rows.normalize`); "
        f"sequences are cut at {config.encoder.max_length} tokens.",
    ]
    if onnx:
        lines += ["", f"`onnx/` holds {_listed(onnx)}: token ids, mask and token types in, logits and score out."]
    return "\n".join(lines)


def _terms(record: RunRecord) -> str:
    known = [name for name in TERMS if name in record.rows and record.data.name != "sample"]
    bullets = [f"- {name}: {TERMS[name]}" for name in known]
    return "\n".join([f"Trained on: {', '.join(record.rows)} ({record.data.name}).", *([""] * bool(bullets)), *bullets])


def _bullets(facts: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in facts)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
