-- Delivers the messages of transactions that could not do it themselves when they were committed, see deliver_outbox().
-- One call at a time does it, in the order of the transactions' calls: what was committed before another transaction
-- began is delivered before what that has sent. A transaction whose messages cannot be delivered is dropped with a
-- warning: whoever calls this may be committing something else, `this_transaction`, whose addresses it locks as well.
CREATE FUNCTION {schema}.deliver_undelivered(this_transaction bigint DEFAULT NULL) RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER  -- nobody else may read the outbox
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    transactions bigint[];
    earlier bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM {schema}.undelivered) THEN
        RETURN;
    END IF;
    PERFORM {schema}.lock_addresses('{}');  -- begins the log, if nobody has
    PERFORM FROM {schema}.stripe WHERE number = -1 FOR UPDATE;
    WITH gone AS (
        DELETE FROM {schema}.undelivered RETURNING transaction
    )
    SELECT array_agg(gone.transaction ORDER BY first.number) INTO transactions FROM gone
    CROSS JOIN LATERAL (
        SELECT min(o.number) AS number FROM {schema}.outbox AS o WHERE o.transaction = gone.transaction
    ) AS first;
    IF transactions IS NULL THEN
        RETURN;
    END IF;
    PERFORM {schema}.lock_outbox(transactions || this_transaction);
    FOREACH earlier IN ARRAY transactions LOOP
        BEGIN
            PERFORM {schema}.deliver_transactions(ARRAY[earlier], true);
        EXCEPTION WHEN data_exception OR program_limit_exceeded OR invalid_parameter_value OR integrity_constraint_violation THEN
            RAISE WARNING 'pgchannels dropped the messages of a transaction: %', SQLERRM;
            DELETE FROM {schema}.outbox AS o WHERE o.transaction = earlier;
        END;
    END LOOP;
END
$$
