//! What this host knows: who uses a device, who we are, processes.
