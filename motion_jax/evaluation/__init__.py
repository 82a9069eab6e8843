"""What is measured: evaluators run networks on data and map (params, aux) to values."""
