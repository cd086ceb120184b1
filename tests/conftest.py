"""What every test may ask for by name."""

from tests.support.brokers import broker, broker_version, own_broker, vhost, vhost_url

__all__ = ["broker", "broker_version", "own_broker", "vhost", "vhost_url"]
