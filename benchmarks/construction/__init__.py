"""How far agreement can be trusted: masks that are known, made coarse, and simulated models that propose others."""
