//! Host lists, plans, spawning and rendezvous.
