//! Which block lies in which extent: pins, leases, eviction, attributes, directories.
