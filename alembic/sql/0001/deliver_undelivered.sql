-- Delivers the messages of transactions that could not do it themselves when they were committed, see deliver_outbox().
-- One call at a time does it, in the order of the transactions' calls: what was committed before another transaction
-- began is delivered before what that has sent.
CREATE FUNCTION {schema}.deliver_undelivered() RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER  -- nobody else may read the outbox
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    transactions bigint[];
BEGIN
    IF NOT EXISTS (SELECT FROM {schema}.undelivered) THEN
        RETURN;
    END IF;
    PERFORM {schema}.lock_addresses('{}');  -- begins the log, if nobody has
    PERFORM FROM {schema}.stripe WHERE number = -1 FOR UPDATE;
    WITH gone AS (
        DELETE FROM {schema}.undelivered RETURNING transaction
    )
    SELECT array_agg(transaction) INTO transactions FROM gone;
    PERFORM {schema}.deliver_transactions(transactions, true);
END
$$
