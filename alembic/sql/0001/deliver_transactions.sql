-- Delivers what some transactions have put into the outbox, and removes it from there.
-- Locks everything before it delivers anything: each deliver() takes at most 512 messages, and transactions that lock
-- piece by piece could wait for each other.
-- An error if a channel or a queue is full: the transaction that commits is rolled back. If it `is_committed`, its
-- messages are delivered all the same.
CREATE FUNCTION {schema}.deliver_transactions(transactions bigint[], is_committed boolean) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    sent record;
    back integer;
    refused integer[];
    dropped integer;
BEGIN
    WITH gone AS (
        DELETE FROM {schema}.outbox AS o WHERE o.transaction = ANY (transactions) RETURNING *
    )
    SELECT array_agg(address) AS addresses, array_agg(channel) AS channels, array_agg(payload) AS payloads,
           CASE WHEN count(capacity) > 0 THEN array_agg(CASE WHEN is_committed AND capacity IS NOT NULL THEN 2147483647 ELSE capacity END) END AS capacities,
           CASE WHEN count(key) > 0 THEN array_agg(key) END AS keys,
           array_agg(expiry_seconds) AS expiries, count(*) AS count
    INTO sent FROM (SELECT * FROM gone ORDER BY number) AS in_order;
    IF sent.count > 512 THEN
        PERFORM {schema}.lock_addresses(
            sent.addresses || ARRAY(SELECT m.queue FROM {schema}.member AS m WHERE m.topic = ANY (sent.addresses))
        );
    END IF;
    FOR front IN 1 .. sent.count BY 512 LOOP
        back := front + 511;
        SELECT d.refused, d.dropped INTO refused, dropped FROM {schema}.deliver(
            NULL, 'infinity', sent.addresses[front:back], sent.channels[front:back], sent.payloads[front:back],
            sent.capacities[front:back], {schema}.notification_parts(sent.addresses[front:back], sent.payloads[front:back], sent.expiries[front:back]),
            0, 9223372036854775807, sent.keys[front:back], sent.expiries[front:back]
        ) AS d;
        IF refused <> '{}' THEN
            RAISE configuration_limit_exceeded USING
                MESSAGE = format('pgchannels: %s is full', coalesce(
                    sent.channels[front + refused[1] - 1], split_part(sent.addresses[front + refused[1] - 1], ':', 3))),
                DETAIL = 'The transaction is rolled back: nothing of it was sent.',
                HINT = 'Try again when its receivers have caught up, or raise its capacity.';
        END IF;
        IF dropped > 0 THEN
            RAISE WARNING 'pgchannels: full queues in a group did not get % messages of this transaction', dropped;
        END IF;
    END LOOP;
END
$$
