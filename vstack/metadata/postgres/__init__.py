"""The way to Postgres: connections that survive a failover, locks, migrations, and all SQL."""
