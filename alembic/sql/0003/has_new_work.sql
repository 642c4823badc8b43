-- Whether messages of a queue were taken to be worked on since note_open_work() wrote down what was under work.
CREATE FUNCTION {schema}.has_new_work(queue text) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    noted bigint := (
        SELECT (m.channel::bigint[])[1] FROM {schema}.message AS m
        WHERE m.address = 'open' || substr(queue, 6) AND m.number IS NOT NULL ORDER BY m.number DESC LIMIT 1
    );
BEGIN
    RETURN EXISTS (
        SELECT FROM {schema}.message AS m WHERE m.address = 'working' || substr(queue, 6) AND m.number > coalesce(noted, 0)
    );
END
$$
