-- Locks the addresses of all messages that some transactions have in the outbox, and of their copies.
CREATE FUNCTION {schema}.lock_outbox(transactions bigint[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    addresses constant text[] := ARRAY(
        SELECT DISTINCT o.address FROM {schema}.outbox AS o WHERE o.transaction = ANY (transactions) AND o.queued_at IS NULL
    );
BEGIN
    PERFORM {schema}.lock_addresses(addresses || ARRAY(
        SELECT m.queue FROM unnest(addresses) AS sent (address)
        CROSS JOIN LATERAL (SELECT queue FROM {schema}.member WHERE topic = sent.address OFFSET 0) AS m
    ));
END
$$
