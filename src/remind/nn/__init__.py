"""Pure maths: tensors in, tensors out. Knows no configuration, no cohort and no engine."""
