"""What the loop of train.py is made of: times, optimiser, start, resume and end."""
