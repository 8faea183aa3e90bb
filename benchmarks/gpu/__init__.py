"""What only a GPU can show: exact there too, and how fast."""
