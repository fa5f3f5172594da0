"""Pillar: moves messages durably and knows nothing of what is inside.

`broker.broker` is the contract; `embedded` keeps it in the hub's own SQLite file, `rabbitmq` in RabbitMQ.
`outbox` joins a database transaction to a queue, `retry` says what becomes of a message whose handling
failed.
"""
