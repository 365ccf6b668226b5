"""Whether this tree plans, cuts and reports as another commit does, bit for bit."""
