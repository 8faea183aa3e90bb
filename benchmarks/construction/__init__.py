"""How far agreement can be trusted: known masks are made coarse, and simulated models propose others."""
