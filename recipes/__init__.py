"""Runs: data made by recipes, training, benchmarks. Imports everything; nobody imports it but the command line."""
