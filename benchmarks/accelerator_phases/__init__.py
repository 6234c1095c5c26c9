"""The phases of benchmarks/accelerator.py: what each measures, the programs that it runs, and the table of its rows."""
