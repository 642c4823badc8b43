-- Delivers what some transactions have put into the outbox, in pieces, and removes it from there.
-- If there are several pieces, locks everything before it delivers anything: transactions that lock piece by piece could
-- wait for each other.
-- An error if a channel or a queue is full: the transaction that commits is rolled back. If it `is_committed`, its
-- messages are delivered all the same.
CREATE OR REPLACE FUNCTION {schema}.deliver_transactions(transactions bigint[], is_committed boolean) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this_transaction bigint;
    piece record;
    done bigint;
    refused integer[];
    dropped integer;
BEGIN
    FOREACH this_transaction IN ARRAY transactions LOOP
        done := 0;
        LOOP
            SELECT array_agg(address) AS addresses, array_agg(channel) AS channels, array_agg(payload) AS payloads,
                   CASE WHEN count(capacity) > 0 THEN array_agg(
                       CASE WHEN is_committed AND capacity IS NOT NULL THEN 2147483647 ELSE capacity END
                   ) END AS capacities,
                   CASE WHEN count(key) > 0 THEN array_agg(key) END AS keys,
                   array_agg(CASE WHEN has_own_expiry THEN expiry_seconds ELSE -expiry_seconds END) AS expiries, count(*) AS count, max(number) AS last
            INTO piece
            FROM (
                SELECT *, sum(octet_length(payload)) OVER (ORDER BY number) - octet_length(payload) AS bytes_before
                FROM (
                    SELECT * FROM {schema}.outbox AS o WHERE o.transaction = this_transaction AND o.number > done AND o.queued_at IS NULL
                    ORDER BY o.transaction, o.number LIMIT 512
                ) AS next
            ) AS measured
            WHERE bytes_before < 67108864;
            EXIT WHEN piece.count = 0;
            IF done = 0 AND NOT is_committed AND (piece.count = 512 OR EXISTS (
                SELECT FROM {schema}.outbox AS o WHERE o.transaction = this_transaction AND o.number > piece.last AND o.queued_at IS NULL
            )) THEN
                PERFORM {schema}.lock_outbox(transactions);
            END IF;
            done := piece.last;
            SELECT d.refused, d.dropped INTO refused, dropped FROM {schema}.deliver(
                NULL, 'infinity', piece.addresses, piece.channels, piece.payloads, piece.capacities,
                {schema}.notification_parts(piece.addresses, piece.payloads, piece.expiries),
                0, 9223372036854775807, piece.keys, piece.expiries
            ) AS d;
            IF refused <> '{}' THEN
                RAISE configuration_limit_exceeded USING
                    MESSAGE = format('pgchannels: %s is full', coalesce(
                        piece.channels[refused[1]], split_part(piece.addresses[refused[1]], ':', 3))),
                    DETAIL = 'The transaction is rolled back: nothing of it was sent.',
                    HINT = 'Try again when its receivers have caught up, or raise its capacity.';
            END IF;
            IF dropped > 0 THEN
                RAISE WARNING 'pgchannels: full queues in a group did not get % messages of this transaction', dropped;
            END IF;
        END LOOP;
        DELETE FROM {schema}.outbox AS o WHERE o.transaction = this_transaction;
    END LOOP;
END
$$
