-- The number of the last message of a queue that somebody claimed; NULL where nobody did for as long as the log goes back.
-- Claims are rows of the log like messages: nothing is ever deleted, and they go with the slot that they are in.
CREATE FUNCTION {schema}.claimed_until(queue text) RETURNS bigint
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET jit = off
AS $$
BEGIN
    RETURN (
        SELECT m.number FROM {schema}.message AS m
        WHERE m.address = 'claimed' || substr(queue, 6) AND m.number IS NOT NULL
        ORDER BY m.number DESC LIMIT 1
    );
END
$$
