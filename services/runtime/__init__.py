"""What every service process is made of: settings, server, interceptors, auth, errors, storage, telemetry."""
