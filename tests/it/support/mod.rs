//! Servers and material for the tests.
