-- Leaves a token of a node that waits for messages to a queue, unless it has one: the next message wakes it, and nobody
-- else; see wake(). Returns the number of the token. Runs under the lock on the queue.
CREATE FUNCTION {schema}.leave_token(queue text, slot smallint, node_address text, known_token bigint) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tokens constant text := 'idle' || substr(queue, 6);
    node_name constant text := split_part(node_address, ':', 3);
    woken bigint;
    latest bigint;
    found_slot smallint;
BEGIN
    SELECT m.number INTO woken FROM {schema}.message AS m
    WHERE m.address = 'woken' || substr(queue, 6) AND m.number IS NOT NULL ORDER BY m.number DESC LIMIT 1;
    IF known_token > coalesce(woken, 0) THEN
        SELECT m.slot INTO found_slot FROM {schema}.message AS m
        WHERE m.address = tokens AND m.number = known_token AND m.channel = node_name LIMIT 1;
        IF found_slot = leave_token.slot THEN
            RETURN known_token;
        ELSIF found_slot IS NOT NULL THEN
            -- It leaves the log soon. All leave new ones then, so that none has two.
            PERFORM {schema}.wake(queue, 2147483647, leave_token.slot);
        END IF;
    END IF;
    PERFORM {schema}.take_turns(queue, node_name);
    latest := (
        SELECT m.number FROM {schema}.message AS m
        WHERE m.address = tokens AND m.number IS NOT NULL ORDER BY m.number DESC LIMIT 1
    );
    -- Either may be all that is left in the log.
    latest := greatest(latest, woken, known_token, 0) + 1;
    INSERT INTO {schema}.message (slot, id, address, channel, number, payload, published_at, expires_at)
    VALUES (leave_token.slot, 0, tokens, node_name, latest, '', clock_timestamp(), clock_timestamp());
    RETURN latest;
END
$$
