//! Whoever is killed, cut off or gone: the cluster comes back.
