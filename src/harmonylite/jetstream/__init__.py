"""JetStream: the cluster's streams, their readers, the object store and the key-value bucket."""
