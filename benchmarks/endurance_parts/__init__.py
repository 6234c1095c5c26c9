"""What `benchmarks/endurance.py` does to runs, a subject a file."""
