"""Moving VEs between hosts: the source's side, the target's side, and what they say to each other."""
