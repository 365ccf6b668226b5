"""What a trace consists of: tensors, operators and calls, and ints that remember where they came from."""
