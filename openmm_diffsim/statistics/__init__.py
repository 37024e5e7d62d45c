"""Plain numbers: weights of frames, blocks and error bars, sums over pairs."""
