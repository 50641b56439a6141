"""Other hosts: who owns what, and the channel between agents."""
