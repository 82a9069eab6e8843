"""What a step costs: time, FLOPs, memory and communication."""
