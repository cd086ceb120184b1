"""The HTTP door: jobs for those who speak HTTP and not AMQP."""
