"""Pictures of runs: matplotlib's objects alone, no pyplot: nothing global, no backend to set."""
