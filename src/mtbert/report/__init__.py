"""One HTML page of a study, with nothing to load from anywhere: ``mtbert report``."""
