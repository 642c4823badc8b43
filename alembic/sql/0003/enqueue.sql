-- Puts messages into the outbox, inside the caller's transaction: they are delivered if and only if it commits, see
-- deliver_outbox(). The arrays have one element for each message, as in deliver(). A message without an expiry of its own
-- has that of its layer, as a negative number. This function is for everybody who may publish, so it takes only what can
-- be delivered, and no messages to a node itself, which obeys them.
-- Does nothing, and returns the name of this database, if that is not the `expected` one; see outbox_database().
CREATE OR REPLACE FUNCTION {schema}.enqueue(
    expected text, addresses text[], channels text[], payloads bytea[], capacities integer[], keys text[],
    expiries double precision[]
) RETURNS text
LANGUAGE plpgsql
SECURITY DEFINER  -- nobody else may write to the outbox
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    letters constant text := 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.';
    this_transaction constant text := pg_current_xact_id()::text;
    setting constant text := 'pgchannels.transaction_' || '{schema}.outbox'::regclass::oid;  -- of this schema
    is_first boolean;
    kind text;
    is_valid boolean;
BEGIN
    IF expected IS NOT NULL AND expected <> {schema}.outbox_database() THEN
        RETURN current_database();
    END IF;
    -- Only the first message of a transaction fires the trigger. A savepoint that is rolled back takes this back, too.
    -- Not a look into the outbox: to other serializable transactions, that would be a conflict.
    is_first := current_setting(setting, true) IS DISTINCT FROM this_transaction;
    IF is_first THEN
        PERFORM set_config(setting, this_transaction, true);
    END IF;
    FOR n IN 1 .. cardinality(addresses) LOOP
        kind := split_part(addresses[n], ':', 1);
        is_valid := length(addresses[n]) <= 160
            AND length(split_part(addresses[n], ':', 2)) BETWEEN 1 AND 50
            AND translate(addresses[n], letters || ':/@', '') = ''
            AND CASE kind WHEN 'topic' THEN split_part(addresses[n], ':', 3) || split_part(addresses[n], ':', 4) <> ''
                          WHEN 'queue' THEN channels[n] IS NULL AND split_part(addresses[n], ':', 3) <> ''
                          WHEN 'node' THEN channels[n] IS NOT NULL AND split_part(addresses[n], ':', 3) <> '' END
            AND (channels[n] IS NULL OR length(channels[n]) BETWEEN 1 AND 99 AND translate(channels[n], letters || '!', '') = '')
            AND (keys[n] IS NULL OR kind = 'topic' AND length(keys[n]) BETWEEN 1 AND 200)
            AND (capacities[n] IS NULL OR capacities[n] > 0 AND kind <> 'topic')
            AND octet_length(payloads[n]) <= 67112960
            AND abs(expiries[n]) BETWEEN 0.001 AND 315360000;
        IF is_valid IS NOT TRUE THEN
            RAISE invalid_parameter_value USING MESSAGE = 'pgchannels cannot deliver this message';
        END IF;
        -- A row at a time: for one message, which is the rule, that takes a quarter of the time of a set.
        INSERT INTO {schema}.outbox (transaction, is_first, address, channel, payload, capacity, key, expiry_seconds, has_own_expiry)
        VALUES (this_transaction::bigint, is_first AND n = 1, addresses[n], channels[n], payloads[n],
                CASE WHEN kind = 'queue' THEN coalesce(capacities[n], 2147483647) ELSE capacities[n] END, keys[n], abs(expiries[n]),
                expiries[n] > 0);
    END LOOP;
    RETURN NULL;
END
$$
