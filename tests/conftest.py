"""Settings shared by all tests."""

from hypothesis import settings

# The first call of a kernel compiles it, which says nothing about the property under test.
settings.register_profile("default", deadline=None)
settings.load_profile("default")
