"""mtbert: one BERT encoder, several sentence tasks, every ablation one config."""

__version__ = "0.1.0"
