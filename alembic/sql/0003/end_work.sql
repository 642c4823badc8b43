-- Ends the work on messages of a queue, by their numbers and ids: numbers begin anew after a crash, ids do not. Runs
-- under the lock on claims. Returns how many had been given to others before: they may be done twice.
CREATE FUNCTION {schema}.end_work(queue text, slot smallint, numbers bigint[], ids bigint[]) RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    works constant text := 'working' || substr(queue, 6);
    ends constant text := 'done' || substr(queue, 6);
    late integer;
BEGIN
    -- A call that is repeated finds what the first one has ended, and ends nothing.
    INSERT INTO {schema}.message (slot, id, address, number, payload, published_at, expires_at)
    SELECT end_work.slot, done.id, ends, done.number, '', clock_timestamp(), clock_timestamp()
    FROM unnest(numbers, ids) AS done (number, id)
    WHERE EXISTS (
        SELECT FROM {schema}.message AS w WHERE w.address = works AND w.number = done.number AND w.id = done.id
    ) AND NOT EXISTS (
        SELECT FROM {schema}.message AS e WHERE e.address = ends AND e.number = done.number AND e.id = done.id
    );
    SELECT count(*) INTO late FROM unnest(numbers, ids) AS done (number, id)
    WHERE NOT EXISTS (
        SELECT FROM {schema}.message AS e
        WHERE e.address = ends AND e.number = done.number AND e.id = done.id AND e.channel IS NULL
    );
    RETURN late;
END
$$
