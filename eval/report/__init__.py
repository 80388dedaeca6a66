"""What ``descant score`` writes: results, tables and pages."""
