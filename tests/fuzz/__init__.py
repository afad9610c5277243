"""Long runs of a coverage-guided fuzzer over every decoder: ``make fuzz MINUTES=...``."""
