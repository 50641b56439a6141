"""Speed and memory, measured beside a peer or the kernel's floor in the same run; ratios count, not milliseconds."""
