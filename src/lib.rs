//! Cloakroom, a standalone authenticating reverse proxy.

