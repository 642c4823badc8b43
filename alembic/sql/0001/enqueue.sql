-- Puts messages into the outbox, inside the caller's transaction: they are delivered if and only if it commits, see
-- deliver_outbox(). The arrays have one element for each message, as in deliver(). Nodes obey messages to their own
-- address, so those are refused: this function is for everybody who may publish.
-- Does nothing, and returns the name of this database, if that is not the `expected` one; see outbox_database().
CREATE FUNCTION {schema}.enqueue(
    expected text, addresses text[], channels text[], payloads bytea[], capacities integer[], keys text[],
    expiries double precision[]
) RETURNS text
LANGUAGE plpgsql
SECURITY DEFINER  -- nobody else may write to the outbox
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this_transaction constant text := pg_current_xact_id()::text;
    is_first boolean;
BEGIN
    IF expected IS NOT NULL AND expected <> {schema}.outbox_database() THEN
        RETURN current_database();
    END IF;
    -- Only the first message of a transaction fires the trigger. A savepoint that is rolled back takes this back, too.
    -- Not a look into the outbox: to other serializable transactions, that would be a conflict.
    is_first := current_setting('pgchannels.transaction', true) IS DISTINCT FROM this_transaction;
    IF is_first THEN
        PERFORM set_config('pgchannels.transaction', this_transaction, true);
    END IF;
    FOR n IN 1 .. cardinality(addresses) LOOP
        IF (starts_with(addresses[n], 'topic:') OR starts_with(addresses[n], 'queue:') OR starts_with(addresses[n], 'node:') AND channels[n] <> '')
           IS NOT TRUE OR (octet_length(payloads[n]) <= 67112960) IS NOT TRUE OR expiries[n] IS NULL
        THEN
            RAISE invalid_parameter_value USING MESSAGE = 'pgchannels cannot deliver this message';
        END IF;
        -- A row at a time: for one message, which is the rule, that takes a quarter of the time of a set.
        INSERT INTO {schema}.outbox (transaction, is_first, address, channel, payload, capacity, key, expiry_seconds)
        VALUES (this_transaction::bigint, is_first AND n = 1, addresses[n], channels[n], payloads[n], capacities[n], keys[n], expiries[n]);
    END LOOP;
    RETURN NULL;
END
$$
