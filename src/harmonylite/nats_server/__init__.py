"""The embedded nats-server, a supervised child process. Nothing here speaks JetStream."""
