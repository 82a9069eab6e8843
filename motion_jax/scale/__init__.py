"""Many devices and many hosts, and the compiler for them."""
