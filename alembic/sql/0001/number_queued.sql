-- Numbers the messages to queues: each queue by itself, without holes. Runs behind the lock of the addresses.
-- A queue is full when the message that came `capacity` messages before is neither claimed nor expired.
-- Returns a number for each message; NULL where it goes to no queue, or to a full one.
CREATE FUNCTION {schema}.number_queued(addresses text[], capacities integer[]) RETURNS bigint[]
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
AS $$
DECLARE
    numbers bigint[] := array_fill(NULL::bigint, ARRAY[cardinality(addresses)]);
    queue text;
    claimed bigint;
    stored bigint;
    latest bigint;
    n integer;
BEGIN
    FOR queue IN SELECT DISTINCT address FROM unnest(addresses) AS address WHERE starts_with(address, 'queue:') LOOP
        SELECT coalesce((
                SELECT m.number FROM {schema}.message AS m
                WHERE m.address = 'claimed' || substr(queue, 6) AND m.number IS NOT NULL ORDER BY m.number DESC LIMIT 1
            ), 0), (
                SELECT m.number FROM {schema}.message AS m
                WHERE m.address = queue AND m.number IS NOT NULL ORDER BY m.number DESC LIMIT 1
            )
        INTO claimed, stored;
        latest := greatest(stored, claimed);
        FOR n IN SELECT i FROM generate_subscripts(addresses, 1) AS i WHERE addresses[i] = queue ORDER BY i LOOP
            CONTINUE WHEN latest - claimed >= capacities[n] AND (latest + 1 - capacities[n] > coalesce(stored, claimed) OR EXISTS (
                SELECT FROM {schema}.message AS m
                WHERE m.address = queue AND m.number = latest + 1 - capacities[n] AND m.expires_at > clock_timestamp()
            ));
            latest := latest + 1;
            numbers[n] := latest;
        END LOOP;
    END LOOP;
    RETURN numbers;
END
$$
