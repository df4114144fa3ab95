"""What the product costs, measured: each program is one command and writes its table into `results/`."""
