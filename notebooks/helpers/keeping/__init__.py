"""What keeps a run whole: checkpoints, interrupts, checks, messages."""
