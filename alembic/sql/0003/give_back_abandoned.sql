-- Gives back what is under work in a queue by nodes whose lease has ended, or for longer than it may be; and what is said
-- to be under work by this node, but is not: the answer was lost. Returns after how many seconds it is time to look again,
-- or NULL. Gives back a hundred messages at most, so that a call is answered in time however many there are: then that is
-- at once.
CREATE FUNCTION {schema}.give_back_abandoned(
    queue text, node_address text DEFAULT NULL, known_ids bigint[] DEFAULT NULL
) RETURNS double precision
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    log record;
    abandoned record;
    remaining record;
    most constant integer := 100;
BEGIN
    IF NOT EXISTS (
        SELECT FROM {schema}.message AS m WHERE m.address = 'working' || substr(queue, 6) AND m.number IS NOT NULL
    ) THEN
        RETURN NULL;  -- without a lock: most queues are never worked on like this
    END IF;
    log := {schema}.lock_addresses(ARRAY[queue, queue || '.dead', 'claimed' || substr(queue, 6)]);
    SELECT array_agg(w.number ORDER BY w.number) AS numbers, array_agg(w.id ORDER BY w.number) AS ids INTO abandoned
    FROM (
        SELECT w.number, w.id FROM {schema}.open_work(queue) AS w
        WHERE w.is_abandoned OR w.node_address = give_back_abandoned.node_address AND w.id <> ALL (known_ids)
        ORDER BY w.number LIMIT most
    ) AS w;
    IF abandoned.numbers IS NOT NULL THEN
        PERFORM {schema}.give_back(
            queue, abandoned.numbers, abandoned.ids, array_fill(true, ARRAY[cardinality(abandoned.numbers)])
        );
    END IF;
    SELECT coalesce(array_agg(w.number ORDER BY w.number), '{}') AS numbers, min(w.visible_until) AS due INTO remaining
    FROM {schema}.open_work(queue) AS w;
    IF {schema}.has_new_work(queue) THEN
        PERFORM {schema}.note_open_work(queue, log.slot, remaining.numbers);
    END IF;
    RETURN CASE WHEN cardinality(abandoned.numbers) = most THEN 0
                WHEN isfinite(remaining.due) THEN greatest(extract(epoch FROM remaining.due - clock_timestamp()), 0) END;
END
$$
