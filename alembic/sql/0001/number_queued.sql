-- Numbers the messages to queues: each queue separately, without holes, in the order of `places` or, if that is NULL,
-- of the arrays. Runs under the lock on the addresses: nobody else numbers these queues meanwhile.
-- A queue is full if the message that is `capacity` places earlier is neither claimed nor expired.
-- Returns a number for each message; NULL if it goes to no queue, or to a full one.
CREATE FUNCTION {schema}.number_queued(addresses text[], capacities integer[], places integer[]) RETURNS bigint[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    numbers bigint[] := array_fill(NULL::bigint, ARRAY[cardinality(addresses)]);
    message record;
    queue text := '';
    claimed bigint;
    stored bigint;
    latest bigint;
BEGIN
    FOR message IN
        SELECT address, capacity, n
        FROM unnest(addresses, capacities, places) WITH ORDINALITY AS sent (address, capacity, place, n)
        WHERE starts_with(address, 'queue:') ORDER BY address COLLATE "C", place, n
    LOOP
        IF message.address <> queue THEN
            queue := message.address;
            SELECT coalesce((
                    SELECT m.number FROM {schema}.message AS m
                    WHERE m.address = 'claimed' || substr(queue, 6) AND m.number IS NOT NULL ORDER BY m.number DESC LIMIT 1
                ), 0), (
                    SELECT m.number FROM {schema}.message AS m
                    WHERE m.address = queue AND m.number IS NOT NULL ORDER BY m.number DESC LIMIT 1
                )
            INTO claimed, stored;
            latest := greatest(stored, claimed);
        END IF;
        CONTINUE WHEN latest - claimed >= message.capacity AND (
            latest + 1 - message.capacity > coalesce(stored, claimed) OR EXISTS (
                SELECT FROM {schema}.message AS m
                WHERE m.address = queue AND m.number = latest + 1 - message.capacity AND m.expires_at > clock_timestamp()
            )
        );
        latest := latest + 1;
        numbers[message.n] := latest;
    END LOOP;
    RETURN numbers;
END
$$
