-- Writes down what is under work in a queue, for open_work(). Runs under the lock on claims.
CREATE FUNCTION {schema}.note_open_work(queue text, slot smallint, numbers bigint[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    notes constant text := 'open' || substr(queue, 6);
    latest bigint := (
        SELECT m.number FROM {schema}.message AS m
        WHERE m.address = notes AND m.number IS NOT NULL ORDER BY m.number DESC LIMIT 1
    );
    taken bigint := (
        SELECT m.number FROM {schema}.message AS m
        WHERE m.address = 'working' || substr(queue, 6) AND m.number IS NOT NULL ORDER BY m.number DESC LIMIT 1
    );
BEGIN
    INSERT INTO {schema}.message (slot, id, address, number, channel, payload, published_at, expires_at)
    VALUES (note_open_work.slot, 0, notes, coalesce(latest, 0) + 1, (taken || numbers)::text, '', clock_timestamp(), clock_timestamp());
END
$$
